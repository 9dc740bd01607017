//! The files that every container of a pod has: `resolv.conf`, `hosts` and `hostname`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::node::rootfs::Bind;
use crate::topology::{CLUSTER_DOMAIN, DNS_CLUSTER_IP, OUTSIDE_IP};

/// The pod's host name: its own wish, else its name, cut to what a label may be.
pub(super) fn hostname(pod: &Pod) -> String {
    let wished = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let mut name = wished.unwrap_or_else(|| pod.name_any());
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Writes the files into `directory` and says where they are mounted.
pub(super) fn write(directory: &Path, pod: &Pod, addresses: &[IpAddr]) -> io::Result<Vec<Bind>> {
    fs::create_dir_all(directory)?;
    let files = [
        ("/etc/resolv.conf", resolv_conf(pod)),
        ("/etc/hosts", hosts(pod, addresses)),
        ("/etc/hostname", format!("{}\n", hostname(pod))),
    ];
    files
        .into_iter()
        .map(|(target, content)| {
            let source = directory.join(target.trim_start_matches("/etc/"));
            fs::write(&source, content)?;
            Ok(Bind {
                source,
                target: target.to_owned(),
                read_only: false,
            })
        })
        .collect()
}

/// The resolver's configuration by `dnsPolicy` and `dnsConfig`.
fn resolv_conf(pod: &Pod) -> String {
    let namespace = pod.namespace().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let on_host = spec.host_network.unwrap_or_default();
    let (mut servers, mut searches, mut options) = (Vec::new(), Vec::new(), Vec::new());
    match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => {}
        // The node's own: the world's name server.
        "ClusterFirst" if on_host => servers.push(OUTSIDE_IP.to_string()),
        "Default" => servers.push(OUTSIDE_IP.to_string()),
        _ => {
            servers.push(DNS_CLUSTER_IP.to_string());
            searches.extend([
                format!("{namespace}.svc.{CLUSTER_DOMAIN}"),
                format!("svc.{CLUSTER_DOMAIN}"),
                CLUSTER_DOMAIN.to_owned(),
            ]);
            options.push("ndots:5".to_owned());
        }
    }
    if let Some(config) = spec.dns_config {
        servers.extend(config.nameservers.unwrap_or_default());
        searches.extend(config.searches.unwrap_or_default());
        for option in config.options.unwrap_or_default() {
            let name = option.name.unwrap_or_default();
            options.retain(|known: &String| known.split(':').next() != Some(&name));
            options.push(match option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

fn hosts(pod: &Pod, addresses: &[IpAddr]) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n\
        127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\n\
        fe00::2\tip6-allrouters\n"
        .to_owned();
    let name = hostname(pod);
    let spec = pod.spec.clone().unwrap_or_default();
    let names = match spec.subdomain.filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => {
            let namespace = pod.namespace().unwrap_or_default();
            format!("{name}.{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}\t{name}")
        }
        None => name,
    };
    for address in addresses {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    let aliases = spec.host_aliases.unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object_of_yaml;

    fn pod(spec: &str) -> Pod {
        let yaml = format!("{{metadata: {{name: web-0, namespace: shop}}, spec: {spec}}}");
        object_of_yaml(&yaml)
    }

    #[test]
    fn the_resolver_follows_the_policy() {
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local\n\
            nameserver 10.96.0.10\noptions ndots:5\n";
        for (spec, expected) in [
            ("{containers: []}", cluster),
            (
                "{containers: [], hostNetwork: true}",
                "nameserver 172.30.0.1\n",
            ),
            (
                "{containers: [], dnsPolicy: Default}",
                "nameserver 172.30.0.1\n",
            ),
            (
                "{containers: [], hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet}",
                cluster,
            ),
            (
                "{containers: [], dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1]}}",
                "nameserver 1.1.1.1\n",
            ),
        ] {
            assert_eq!(resolv_conf(&pod(spec)), expected, "{spec}");
        }
        let ndots = "{containers: [], dnsConfig: {options: [{name: ndots, value: '2'}]}}";
        assert!(resolv_conf(&pod(ndots)).ends_with("options ndots:2\n"));
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let pod = pod(
            "{containers: [], subdomain: web, hostAliases: [{ip: 10.1.1.1, hostnames: [a, b]}]}",
        );
        let both = ["10.244.0.9", "fd00:10:244::9"].map(|ip| ip.parse().unwrap());
        let hosts = hosts(&pod, &both);
        for ip in both {
            let line = format!("{ip}\tweb-0.web.shop.svc.cluster.local\tweb-0\n");
            assert!(hosts.contains(&line), "{hosts}");
        }
        assert!(hosts.ends_with("10.1.1.1\ta\tb\n"), "{hosts}");
    }
}
