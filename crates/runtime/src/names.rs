//! The names of everything that an instance makes on the machine, all derived from the instance's name.
//!
//! Interface names have at most 15 bytes, so a hash of the instance's name stands for it. The hash is written out here
//! because the names must be the same in every release: recovery finds what an older binary left by them.

/// Names derived from the instance's name.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    tag: String,
}

impl Names {
    pub(crate) fn new(instance: &str) -> Names {
        // FNV-1a, folded to 24 bits.
        let hash = instance
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Names { tag: format!("{:06x}", (hash >> 24) ^ (hash & 0x00ff_ffff)) }
    }

    /// The bridge that all containers of the instance hang on.
    pub(crate) fn bridge(&self) -> String {
        format!("hp{}br", self.tag)
    }

    /// The host's end of the link of the container in `slot`.
    pub(crate) fn veth(&self, slot: u32) -> String {
        format!("hp{}v{slot}", self.tag)
    }

    /// Whether an interface was made by this instance.
    pub(crate) fn owns_link(&self, link: &str) -> bool {
        link.strip_prefix("hp").and_then(|rest| rest.strip_prefix(self.tag.as_str())).is_some_and(|rest| {
            rest == "br" || rest.strip_prefix('v').is_some_and(|slot| slot.parse::<u32>().is_ok())
        })
    }

    /// Whether an interface is the bridge of any instance, this one included.
    pub(crate) fn is_bridge_of_any_instance(link: &str) -> bool {
        link.strip_prefix("hp")
            .and_then(|rest| rest.strip_suffix("br"))
            .is_some_and(|tag| tag.len() == 6 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// The nft table, in the family `inet`.
    pub(crate) fn table(&self) -> String {
        format!("homeport_{}", self.tag)
    }

    /// The cgroup above all containers of the instance, relative to each hierarchy's mount.
    pub(crate) fn cgroup(&self) -> String {
        format!("homeport-{}", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_fit_an_interface() {
        let names = Names::new("default");
        assert_eq!(names.bridge(), "hp3b5b4dbr");
        assert!(names.veth(99_999).len() <= 15);
    }

    #[test]
    fn links_of_another_instance_are_not_owned() {
        let (ours, theirs) = (Names::new("a"), Names::new("b"));
        assert!(ours.owns_link(&ours.bridge()) && ours.owns_link(&ours.veth(7)));
        assert!(!ours.owns_link(&theirs.bridge()) && !ours.owns_link(&theirs.veth(7)));
        assert!(!ours.owns_link(&format!("{}x", ours.veth(7))));
        assert!(Names::is_bridge_of_any_instance(&theirs.bridge()));
        assert!(!Names::is_bridge_of_any_instance("hpbr"));
    }
}
