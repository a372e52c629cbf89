//! The place that one process runs in: a sandbox, a root of layers, control's files and a listener.
//!
//! Tasks and build commands prepare a site, run one container in it, and take from it what shall be kept. Whatever
//! happens, dropping the site unmounts the root, discards what was written, closes the listener and removes the
//! network.

mod files;
mod network_files;
mod scratch;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use homeport_content::SnapshotId;
use homeport_fs::{CommitRequest, FsError, IdMap, Mount, MountRequest, SharedDirectory, WritableLayer};
use homeport_proto::worker::{File, NetworkFiles, VolumeMount};
use homeport_runtime::{Bind, Container, ContainerSpec, Limits, MOUNT_POINTS, Sandbox, Stdio};

use crate::environment::BUNDLE_TARGET;
use crate::error::{Cancelled, SiteError, blocking};
use crate::node::Node;
use crate::proxy::{Identity, Proxy, Scope, Upstream};
use crate::volumes::MountedVolumes;

/// What a commit leaves out, beside the runtime's mount points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveOut {
    /// A task ran over the client's own layers, and may have left caches in them.
    ClientLayers,
    /// A build command made an image, in which nothing of the worker's may stay.
    Place,
    /// A command made directories that are cut out of the result: these may be anywhere.
    BindsOnly,
}

impl LeaveOut {
    fn paths(self) -> &'static [&'static str] {
        match self {
            Self::ClientLayers => &["/__modal", "/pkg", "/run/secrets"],
            Self::Place => &["/__modal", "/run/secrets"],
            Self::BindsOnly => &[],
        }
    }
}

/// What a site is made from.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Distinct among the orders of this worker.
    pub(crate) id: String,
    /// Hex snapshot ids, the uppermost first.
    pub(crate) layers: Vec<String>,
    pub(crate) files: Vec<File>,
    /// Absolute paths of directories that begin empty and end with the site.
    pub(crate) scratch: Vec<String>,
    pub(crate) network_files: Vec<NetworkFiles>,
    pub(crate) volumes: Vec<VolumeMount>,
    pub(crate) listen: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) scope: Scope,
}

/// How long the parts took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) network: Duration,
    pub(crate) mount: Duration,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) argv: Vec<String>,
    pub(crate) env: HashMap<String, String>,
    pub(crate) workdir: String,
    pub(crate) user: String,
    pub(crate) limits: Limits,
    pub(crate) devices: Vec<String>,
}

/// A prepared place. The fields are dropped in this order, which is the order to take it down.
#[derive(Debug)]
pub(crate) struct Site {
    id: String,
    binds: Vec<Bind>,
    volumes: Arc<MountedVolumes>,
    _shared: Vec<SharedDirectory>,
    lowers: Vec<SnapshotId>,
    _proxy: Proxy,
    mount: Option<Mount>,
    layer: WritableLayer,
    id_map: Option<IdMap>,
    sandbox: Sandbox,
    directory: Directory,
}

impl Site {
    /// Makes everything for `plan`, on threads that may block. Checks `cancelled` between the parts.
    pub(crate) async fn prepare(
        node: &Arc<Node>,
        plan: Plan,
        cancelled: impl Fn() -> bool + Send,
    ) -> Result<(Self, Timing), SiteError> {
        check_id(&plan.id)?;
        let check = || {
            if cancelled() { Err(SiteError::Cancelled(Cancelled)) } else { Ok(()) }
        };
        let lowers = parse_layers(&plan.layers)?;
        check()?;

        // Making snapshots mountable needs nothing of the sandbox, so both go on at the same time.
        let preparing = {
            let (node, lowers) = (Arc::clone(node), lowers.clone());
            blocking(move || {
                let started = Instant::now();
                let prepared = lowers.iter().try_for_each(|lower| node.fs.prepare(lower).map(drop));
                prepared.map(|()| started.elapsed())
            })
        };
        let networking = {
            let (node, id) = (Arc::clone(node), plan.id.clone());
            blocking(move || {
                let started = Instant::now();
                let sandbox = node.runtime.sandbox(&id)?;
                let listener = sandbox.listen(plan.listen)?;
                Ok::<_, SiteError>((sandbox, listener, started.elapsed()))
            })
        };
        let (prepared, networked) = tokio::join!(preparing, networking);
        let (sandbox, listener, network) = networked??;
        let prepared = prepared??;
        let upstream = Upstream::new(
            &node.control,
            node.options.control_service.as_ref(),
            &node.credential,
            plan.identity,
        )
        .ok_or_else(|| SiteError::Id(plan.id.clone()))?;
        let proxy = Proxy::start(listener, upstream, plan.scope).map_err(SiteError::Listener)?;
        check()?;

        let started = Instant::now();
        let taken_down = Arc::clone(node);
        let node = Arc::clone(node);
        let (id, files, scratch) = (plan.id, plan.files, plan.scratch);
        let (network_files, volumes) = (plan.network_files, plan.volumes);
        let site = blocking(move || {
            let id_map = own_id_map(&sandbox)?;
            let owner = id_map.as_ref().map_or(0, |map| map.host_base);
            let directory = Directory::make(node.sites.join(&id))?;
            let mut binds = files::write(&directory.path.join("files"), owner, &files)?;
            binds.extend(scratch::make(&directory.path.join("scratch"), owner, &scratch)?);
            let (shared, shared_binds) = network_files::mount(
                &node.options.network_files_dir,
                &directory.mounts(),
                &network_files,
                id_map.as_ref(),
            )?;
            binds.extend(shared_binds);
            if let Some(bundle) = node.options.host_environment.bundle() {
                let target = PathBuf::from(BUNDLE_TARGET);
                binds.push(Bind { source: bundle.to_owned(), target, read_only: true });
            }
            let layer = node.fs.new_layer(&id)?;
            let mount = node.fs.mount(MountRequest {
                lowers: &lowers,
                layer: Some(&layer),
                target: &directory.root(),
                id_map: id_map.as_ref(),
            })?;
            // The last that can fail, because it has to be ended in its own way.
            let volumes = MountedVolumes::open(&node, &id, &volumes, id_map.as_ref())?;
            binds.extend_from_slice(volumes.binds());
            Ok::<_, SiteError>(Self {
                id,
                binds,
                volumes: Arc::new(volumes),
                _shared: shared,
                lowers,
                _proxy: proxy,
                mount: Some(mount),
                layer,
                id_map,
                sandbox,
                directory,
            })
        })
        .await??;
        let timing = Timing { network, mount: prepared + started.elapsed() };
        // Taking it down blocks as well, so it isn't left to the drop of a future.
        if let Err(error) = check() {
            site.volumes.abandon(&taken_down).await;
            site.dismantle().await;
            return Err(error);
        }
        Ok((site, timing))
    }

    /// The Volumes that its process sees. Whoever prepared them ends them.
    pub(crate) fn volumes(&self) -> Arc<MountedVolumes> {
        Arc::clone(&self.volumes)
    }

    /// Starts the process. The site comes back in any case, because only the caller knows what is to become of it.
    pub(crate) async fn start(
        self,
        node: &Arc<Node>,
        command: Command,
        stdio: Stdio,
    ) -> Result<(Self, Result<Container, SiteError>), SiteError> {
        let node = Arc::clone(node);
        blocking(move || {
            let spec = ContainerSpec {
                id: self.id.clone(),
                rootfs: self.directory.root(),
                argv: command.argv,
                env: command.env.into_iter().collect(),
                workdir: command.workdir,
                hostname: String::new(),
                user: command.user,
                binds: self.binds.clone(),
                limits: command.limits,
                devices: command.devices,
            };
            let container = node.runtime.start(&self.sandbox, &spec, stdio).map_err(SiteError::from);
            (self, container)
        })
        .await
    }

    /// Makes what the process wrote a snapshot. The container must have been removed.
    pub(crate) async fn commit(
        mut self,
        node: &Arc<Node>,
        leave_out: LeaveOut,
    ) -> Result<(Self, Result<SnapshotId, FsError>), SiteError> {
        let node = Arc::clone(node);
        blocking(move || {
            if let Some(mount) = self.mount.take()
                && let Err(error) = mount.unmount()
            {
                return (self, Err(error));
            }
            let bound = self.binds.iter().filter_map(|bind| bind.target.to_str());
            let exclude: Vec<&str> =
                leave_out.paths().iter().chain(MOUNT_POINTS).copied().chain(bound).collect();
            let snapshot = node.fs.commit(CommitRequest {
                layer: &self.layer,
                lowers: &self.lowers,
                exclude: &exclude,
                id_map: self.id_map.as_ref(),
            });
            (self, snapshot)
        })
        .await
    }

    /// Takes everything down, on a thread that may block.
    pub(crate) async fn dismantle(self) {
        // A panic inside is logged by the runtime; the rest of the fields are dropped all the same.
        let _ = blocking(move || drop(self)).await;
    }
}

/// Removes the directories that an earlier run left; their mounts ended with it.
pub(crate) fn clear(sites: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(sites) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make_searchable(sites)
}

/// The directory of a site. The mount within it is gone when this is dropped, because fields are dropped in order.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn make(path: PathBuf) -> Result<Self, SiteError> {
        let failed = |source| SiteError::Directory { path: path.clone(), source };
        make_searchable(&path).map_err(failed)?;
        let directory = Self { path: path.clone() };
        std::fs::create_dir(directory.root()).map_err(failed)?;
        make_searchable(&directory.mounts()).map_err(failed)?;
        Ok(directory)
    }

    fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// Where what the runtime binds into the container is mounted.
    fn mounts(&self) -> PathBuf {
        self.path.join("mounts")
    }

    /// Never recursive: were a mount still there, that would empty it.
    fn remove_mount_points(&self) -> std::io::Result<()> {
        let mut points = vec![self.root()];
        if let Ok(entries) = std::fs::read_dir(self.mounts()) {
            points.extend(entries.flatten().map(|entry| entry.path()));
        }
        for point in points {
            match std::fs::remove_dir(point) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let removed = self.remove_mount_points().and_then(|()| std::fs::remove_dir_all(&self.path));
        if let Err(error) = removed {
            tracing::error!(%error, path = %self.path.display(), "a directory is left until the next start");
        }
    }
}

/// The kernel looks a container's root up with ids that own nothing here, so everybody may pass, but nobody may list.
pub(crate) fn make_searchable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
}

fn own_id_map(sandbox: &Sandbox) -> Result<Option<IdMap>, SiteError> {
    let Some(map) = sandbox.id_map() else {
        return Ok(None);
    };
    let userns = map.userns.try_clone().map_err(SiteError::UserNamespace)?;
    Ok(Some(IdMap { userns, host_base: map.host_base, size: map.size }))
}

fn parse_layers(layers: &[String]) -> Result<Vec<SnapshotId>, SiteError> {
    if layers.is_empty() {
        return Err(SiteError::NoLayers);
    }
    layers.iter().map(|layer| layer.parse().map_err(|_| SiteError::Layer(layer.clone()))).collect()
}

/// The id becomes the name of directories, cgroups and of the host inside.
fn check_id(id: &str) -> Result<(), SiteError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
        return Err(SiteError::Id(id.to_owned()));
    }
    Ok(())
}
