//! What a container's security context leaves it of the lab's privileges.

use k8s_openapi::api::core::v1::Container;

use crate::node::rootfs::ContainerFile;

/// The kernel's names, in the kernel's order: `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd gives a container that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Writes the container's security context into its file. Users are not changed: the lab has one.
pub(super) fn restrict(file: &mut ContainerFile, container: &Container) {
    let context = container.security_context.clone().unwrap_or_default();
    file.read_only = context.read_only_root_filesystem.unwrap_or_default();
    if context.privileged.unwrap_or_default() {
        return;
    }
    file.no_new_privileges = context.allow_privilege_escalation == Some(false);
    let capabilities = context.capabilities.unwrap_or_default();
    let mut kept = DEFAULT.to_vec();
    let all = |names: &[String]| names.iter().any(|name| name == "ALL");
    let plain = |name: &String| name.trim_start_matches("CAP_").to_uppercase();
    let (add, drop) = (
        capabilities.add.unwrap_or_default(),
        capabilities.drop.unwrap_or_default(),
    );
    if all(&drop) {
        kept.clear();
    }
    kept.retain(|name| !drop.iter().any(|dropped| plain(dropped) == *name));
    kept.extend(
        NAMES
            .iter()
            .filter(|name| all(&add) || add.iter().any(|added| plain(added) == **name)),
    );
    let numbers = (0u8..).zip(NAMES).filter(|(_, name)| kept.contains(name));
    file.capabilities = Some(numbers.map(|(number, _)| number).collect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object_of_yaml;

    #[test]
    fn capabilities_are_the_default_less_drop_and_add() {
        let kept = |context: &str| {
            let yaml = format!("{{name: a, securityContext: {context}}}");
            let mut file = ContainerFile::default();
            restrict(&mut file, &object_of_yaml(&yaml));
            file.capabilities
        };
        let net_admin = 12;
        assert_eq!(kept("{}").unwrap().len(), DEFAULT.len());
        assert!(
            kept("{capabilities: {add: [NET_ADMIN]}}")
                .unwrap()
                .contains(&net_admin)
        );
        assert_eq!(
            kept("{capabilities: {drop: [ALL], add: [CAP_NET_RAW]}}").unwrap(),
            [13]
        );
        assert_eq!(kept("{privileged: true}"), None);
    }
}
