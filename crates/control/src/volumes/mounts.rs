//! Where functions want Volumes, and the orders that put them there.

use std::collections::BTreeMap;

use homeport_proto::client as pb;
use homeport_proto::worker as wp;
use tonic::Status;

use super::containers::Mounted;
use super::publish::display_name;
use super::version::to_worker;
use crate::control::Control;
use crate::scheduler::Launch;

/// Places that a container needs for itself, with all that is below and above them.
const RESERVED: [&str; 8] =
    ["/proc", "/sys", "/dev", "/pkg", "/__modal", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"];
/// Places that a container needs for itself; what is below them is free.
const NEEDED: [&str; 3] = ["/", "/root", "/tmp"];

impl Control {
    /// Refuses mounts that could never be made.
    pub(crate) fn check_volume_mounts(&self, mounts: &[pb::VolumeMount]) -> Result<(), Status> {
        let mut paths: Vec<&str> = Vec::new();
        for mount in mounts {
            let path = mount.mount_path.as_str();
            if mount.volume_id.is_empty() {
                // Older clients don't look up what comes in by options.
                return Err(Status::invalid_argument(format!(
                    "the Volume for `{path}` was not looked up by the client: get it with `Volume.lookup`, or mount it \
                     in a function of the same app as well"
                )));
            }
            self.volumes.find(&mount.volume_id)?;
            let refuse = |why: &str| {
                Err(Status::invalid_argument(format!("no Volume can be mounted at `{path}`: {why}")))
            };
            if !is_plain(path) {
                return refuse("the path must be absolute, without `.`, `..`, or a slash at its end");
            }
            if NEEDED.contains(&path) || RESERVED.iter().any(|place| overlap(place, path)) {
                return refuse("the container needs that place for itself; choose another directory");
            }
            if paths.contains(&path) {
                return refuse("another Volume of the function is mounted there");
            }
            paths.push(path);
            let sub_path = mount.sub_path.as_deref().unwrap_or_default();
            if sub_path.split('/').any(|part| part == "..") {
                return Err(Status::invalid_argument(format!(
                    "`{sub_path}` leads out of the Volume at `{path}`"
                )));
            }
        }
        Ok(())
    }

    /// The Volumes of a container that is about to start, as they are now. They count as mounted from here on.
    pub(crate) fn volumes_of(
        &self,
        launch: &Launch,
        definition: &pb::Function,
        app_id: &str,
        log_id: &str,
    ) -> Result<Vec<wp::VolumeMount>, String> {
        let function_name = definition.function_name.trim_end_matches(".*");
        let mut by_volume: BTreeMap<&str, Vec<&pb::VolumeMount>> = BTreeMap::new();
        for mount in &definition.volume_mounts {
            by_volume.entry(&mount.volume_id).or_default().push(mount);
        }
        let mut orders = Vec::new();
        for (volume_id, mounts) in by_volume {
            let volume = self.volumes.find(volume_id).map_err(|error| {
                format!(
                    "{error}. Deploy or run the app again, with a Volume that exists, to use {function_name}"
                )
            })?;
            let name = display_name(&volume);
            let ids = (launch.task_id.as_str(), volume_id, launch.worker_id.as_str());
            let mounted = Mounted::new(ids, name.clone(), function_name, app_id, log_id);
            let mounted = self.volumes.containers.mount(mounted);
            let head = loop {
                let head = self.volumes.head(volume_id).map_err(|error| error.to_string())?;
                mounted.pin(&self.store, &head.stack);
                // Layers that were replaced before they were pinned may be gone.
                if self.volumes.head(volume_id).is_ok_and(|now| now.stack == head.stack) {
                    break head;
                }
            };
            mounted.shows(head.number());
            orders.push(wp::VolumeMount {
                volume_id: volume_id.to_owned(),
                name,
                stack: Some(to_worker(&head.stack)),
                version: head.number(),
                places: mounts.iter().map(|mount| place(mount)).collect(),
                background_commits: mounts
                    .iter()
                    .any(|mount| mount.allow_background_commits && !mount.read_only),
                early_copies: volume.early_copies.clone(),
                quota_bytes: volume.quota_bytes,
            });
        }
        Ok(orders)
    }
}

fn place(mount: &pb::VolumeMount) -> wp::VolumePlace {
    let sub_path = mount.sub_path.as_deref().unwrap_or_default();
    let parts: Vec<&str> = sub_path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    wp::VolumePlace { path: mount.mount_path.clone(), read_only: mount.read_only, sub_path: parts.join("/") }
}

fn is_plain(path: &str) -> bool {
    let mut parts = path.split('/');
    path.len() > 1
        && parts.next() == Some("")
        && parts.all(|part| !part.is_empty() && part != "." && part != "..")
        && !path.contains('\0')
}

/// Whether one is the other or lies within it.
fn overlap(one: &str, other: &str) -> bool {
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(one, other) || within(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_overlap_only_by_whole_names() {
        assert!(overlap("/dev", "/dev"));
        assert!(overlap("/dev", "/dev/shm"));
        assert!(overlap("/etc/hosts", "/etc"));
        assert!(!overlap("/dev", "/develop"));
        assert!(!overlap("/etc/hosts", "/etc/models"));
    }

    #[test]
    fn plain_paths_are_absolute_and_canonical() {
        assert!(is_plain("/models/a b"));
        for path in ["", "/", "models", "/models/", "/a//b", "/a/./b", "/a/../b"] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn sub_paths_lose_what_means_nothing() {
        let mount = pb::VolumeMount { sub_path: Some("/users//./me/".into()), ..Default::default() };
        assert_eq!(place(&mount).sub_path, "users/me");
    }
}
