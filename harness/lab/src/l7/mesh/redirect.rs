//! `istio-init`: sends a pod's connections through its sidecar.
//!
//! Start from [`run`], the task of image `lab.strata.dev/istio-init:v1`, whose rules are [`RULES`].
//! They are Istio's, but for one thing: the sidecar's own connections are told by their mark, since
//! there is only one user id.

use anyhow::Context as _;

use super::{INBOUND_PORT, INBOUND_SOURCE, MARK, OUTBOUND_PORT};
use crate::builtin::BuiltinContext;

/// Ports of the sidecar itself: administration, the two entrances, readiness, statistics.
const OWN_PORTS: &str = "{ 15000, 15001, 15006, 15020, 15021, 15090 }";

/// How long a connection that nobody has answered yet is remembered. The sidecar's own go past these rules, and what is
/// remembered of one says so for its port: by default for two minutes, in which the application may be given that port.
const SYN_SENT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent";
/// Above what a SYN that is lost is sent again after.
const REMEMBERED: &str = "10";

fn forget_soon() -> std::io::Result<()> {
    std::fs::write(SYN_SENT, REMEMBERED)
}

/// The rules, in one transaction.
fn rules() -> String {
    format!(
        "table ip istio
delete table ip istio
table ip istio {{
  chain inbound {{
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto != tcp return
    tcp dport {OWN_PORTS} return
    meta l4proto tcp redirect to :{INBOUND_PORT}
  }}
  chain outbound {{
    type nat hook output priority -100; policy accept;
    meta l4proto != tcp return
    # The sidecar handing a connection that it took to its own application.
    ip saddr {INBOUND_SOURCE} return
    # The sidecar calling its own pod as one of a Service's endpoints: in by the front door.
    oifname \"lo\" ip daddr != 127.0.0.1 meta mark {MARK} tcp dport != {OWN_PORTS} redirect to :{INBOUND_PORT}
    oifname \"lo\" return
    meta mark {MARK} return
    meta l4proto tcp redirect to :{OUTBOUND_PORT}
  }}
}}
"
    )
}

/// Installs the rules and ends.
///
/// # Errors
/// When `nft` refuses them.
pub(crate) async fn run(context: BuiltinContext) -> anyhow::Result<()> {
    context
        .nft
        .apply(&context.netns, &rules())
        .await
        .context("the redirection to the sidecar")?;
    if let Err(error) = context.netns.run(forget_soon) {
        (context.log)(&format!("{SYN_SENT} stays as it is: {error}"));
    }
    (context.log)(&format!(
        "TCP goes out through {OUTBOUND_PORT} and comes in through {INBOUND_PORT}"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    /// Only the kernel can tell whether rules are rules: asked in namespaces of our own.
    #[test]
    fn nft_takes_the_rules() {
        use std::io::Write;
        let mut child = match std::process::Command::new("unshare")
            .args([
                "-Urn",
                "sh",
                "-c",
                "PATH=$PATH:/usr/sbin:/sbin exec nft -f -",
            ])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
        {
            Ok(child) => child,
            Err(error) => {
                eprintln!("not run: unshare: {error}");
                return;
            }
        };
        child
            .stdin
            .take()
            .unwrap()
            .write_all(super::rules().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("not found") || said.contains("unshare failed") {
            eprintln!("not run: {said}");
            return;
        }
        assert!(output.status.success(), "{said}\n{}", super::rules());
    }
}
