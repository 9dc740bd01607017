//! `minikube tunnel`: a route to the Services' addresses, as long as it runs.
//!
//! Start from [`Tunnel::start`]. minikube adds a route to the range of cluster IPs by `sudo ip route add`, and gives
//! every Service of `type: LoadBalancer` its own cluster IP as address. It does not look whether it may: so we ask
//! sudo beforehand, for whoever would have to type a password has no terminal here. What it says of itself every
//! few seconds is read ([`Reading`]). Rule: it ends in order (its route goes by SIGINT alone); if we are killed,
//! nobody reads what it writes, and it ends by that.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::cli::Cli;
use crate::group::Group;
use crate::provider::step::Step;
use crate::provider::tools;

const ASK: Duration = Duration::from_secs(10);
/// What each part of a status says that is well.
const NO_ERRORS: &str = "no errors";
/// How a password gets out of the way.
const PASSWORD: &str = "let sudo know it beforehand (sudo -v), or allow sudo ip without one";

/// A tunnel that runs.
#[derive(Debug)]
pub(super) struct Tunnel {
    child: Child,
    _group: Group,
    said: watch::Receiver<Said>,
    _readers: [AbortOnDropHandle<()>; 2],
}

/// What a tunnel says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Nothing,
    /// It has added this route.
    Up(String),
    Trouble(String),
}

impl Tunnel {
    /// Starts it, and waits until it has added its route. Programs are looked for by a search path.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    pub(super) async fn start(cli: &Cli, path: &OsStr, limit: Duration) -> Result<Self, String> {
        may_route(path).await?;
        let cannot = |error: std::io::Error| format!("minikube tunnel cannot be run: {error}");
        let mut child = Command::new(cli.path())
            .args(["tunnel", "--profile", &cli.profile])
            .envs(cli.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        let (tell, said) = watch::channel(Said::Nothing);
        let group = Group::of(&child);
        let readers = [
            AbortOnDropHandle::new(tokio::spawn(listen(child.stdout.take(), tell.clone()))),
            AbortOnDropHandle::new(tokio::spawn(listen(child.stderr.take(), tell))),
        ];
        let mut tunnel = Self {
            child,
            _group: group,
            said,
            _readers: readers,
        };
        tunnel.settled(limit).await?;
        Ok(tunnel)
    }

    async fn settled(&mut self, limit: Duration) -> Result<(), String> {
        let settled = self.said.wait_for(|said| *said != Said::Nothing);
        let said = match tokio::time::timeout(limit, settled).await {
            Ok(Ok(said)) => said.clone(),
            // Nobody is left who could say anything.
            Ok(Err(_)) => Said::Trouble("it ended, and said nothing".to_owned()),
            Err(_) => Said::Trouble(format!(
                "it said nothing within {} s, as if it waited for a password; {PASSWORD}",
                limit.as_secs()
            )),
        };
        match said {
            Said::Trouble(why) => Err(format!("minikube tunnel does not work: {why}")),
            _ => Ok(()),
        }
    }

    /// Ends it, so that it takes its route away; what went wrong with it, then or before.
    pub(super) async fn stop(mut self, limit: Duration) -> Option<String> {
        let last = self.said.borrow().clone();
        if let Ok(Some(_)) = self.child.try_wait() {
            return Some("minikube tunnel ended before the run did".to_owned());
        }
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        // To it alone: what it starts to take the route away is in its group too.
        let asked = id.map(|id| kill(Pid::from_raw(id), Signal::SIGINT));
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        match (last, asked, ended) {
            (Said::Trouble(why), ..) => {
                Some(format!("minikube tunnel failed during the run: {why}"))
            }
            (_, Some(Ok(())), Ok(Ok(_))) => None,
            (Said::Up(route), ..) => Some(format!(
                "minikube tunnel did not end within {} s, and was killed; its route {route} may be left (sudo ip \
                 route delete)",
                limit.as_secs()
            )),
            _ => Some("minikube tunnel could not be ended in order".to_owned()),
        }
    }
}

/// Whether routes can be added without a password. Asked by showing them, with the very program that adds them:
/// sudo may allow this one and no other.
async fn may_route(path: &OsStr) -> Result<(), String> {
    let adds = "minikube tunnel adds a route by sudo";
    let sudo = tools::on_path(Path::new("sudo"), path).find(|path| path.is_file());
    let sudo =
        sudo.ok_or_else(|| format!("{adds}, also as root, and sudo is not in PATH; install it"))?;
    let step = Step::new(&sudo, "asking sudo", ASK, &["-n", "ip", "route"]);
    let output = step
        .output()
        .await
        .map_err(|error| format!("{adds}: {error:#}"))?;
    if output.exit_code == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("it says nothing").trim();
    Err(format!(
        "{adds}, which wants a password ({said}); {PASSWORD}"
    ))
}

async fn listen(from: Option<impl AsyncRead + Unpin>, tell: watch::Sender<Said>) {
    let Some(from) = from else { return };
    let mut lines = BufReader::new(from).lines();
    let mut reading = Reading::default();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(said) = reading.line(&line) else {
            continue;
        };
        tell.send_if_modified(|last| {
            let changed = *last != said;
            if changed {
                tracing::info!("minikube tunnel says {said:?}");
                *last = said;
            }
            changed
        });
    }
}

/// Reads the lines of a tunnel: a status each few seconds, and whatever else it complains of.
#[derive(Debug, Default)]
struct Reading {
    route: String,
    routed: bool,
}

impl Reading {
    /// What a line says for good; nothing of most.
    fn line(&mut self, line: &str) -> Option<Said> {
        let line = line.trim();
        if let Some(route) = line.strip_prefix("route: ") {
            route.clone_into(&mut self.route);
            return None;
        }
        if let Some(router) = line.strip_prefix("router: ") {
            self.routed = router == NO_ERRORS;
            return (!self.routed).then(|| Said::Trouble(explained(router)));
        }
        if let Some(emulator) = line.strip_prefix("loadbalancer emulator: ") {
            // The last line of a status.
            return self.routed.then(|| match emulator {
                NO_ERRORS => Said::Up(self.route.clone()),
                error => Said::Trouble(format!("it cannot give Services their addresses: {error}")),
            });
        }
        if let Some((_, why)) = line.split_once("Exiting due to ") {
            return Some(Said::Trouble(explained(why)));
        }
        if line.contains("Tunnel successfully started") {
            return Some(Said::Trouble(
                "here it leads through ssh to 127.0.0.1, as where Docker's daemon is on another machine, and \
                 that is not judged"
                    .to_owned(),
            ));
        }
        let asks = line.starts_with("sudo: ") || line.contains("password for");
        asks.then(|| Said::Trouble(explained(line)))
    }
}

/// An error, and what to do about those that are known.
fn explained(error: &str) -> String {
    let remedy = if error.contains("sudo: ") || error.contains("password for") {
        format!("; {PASSWORD}")
    } else if error.contains("conflicting r") || error.contains("another tunnel") {
        "; end the other tunnel, or remove its route (sudo ip route delete)".to_owned()
    } else {
        String::new()
    };
    format!("{error}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As minikube 1.38 writes it (`pkg/minikube/tunnel/reporter.go`).
    fn status(router: &str, emulator: &str) -> String {
        format!(
            "Status:\t\n\tmachine: strata-abc\n\tpid: 17380\n\troute: 10.96.0.0/12 -> 192.168.49.2\n\tminikube: Running\n\tservices: [web]\n    errors: \n\t\tminikube: no errors\n\t\trouter: {router}\n\t\tloadbalancer emulator: {emulator}\n"
        )
    }

    fn read(text: &str) -> Option<Said> {
        let mut reading = Reading::default();
        text.lines().filter_map(|line| reading.line(line)).last()
    }

    #[test]
    fn a_status_is_read_as_a_whole() {
        let up = Some(Said::Up("10.96.0.0/12 -> 192.168.49.2".to_owned()));
        assert_eq!(read(&status(NO_ERRORS, NO_ERRORS)), up);
        let half: String = status(NO_ERRORS, NO_ERRORS)
            .lines()
            .take(9)
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(read(&half), None);
        let trouble = |router: &str, emulator: &str| match read(&status(router, emulator)) {
            Some(Said::Trouble(why)) => why,
            other => panic!("{other:?}"),
        };
        let why = trouble(
            "error adding Route: sudo: a password is required\n, 2",
            NO_ERRORS,
        );
        assert!(
            why.starts_with("error adding Route: sudo: a password is required; let sudo know it"),
            "{why}"
        );
        let why = trouble(
            "conflicting route: 10.96.0.0/12 via 192.168.58.2 dev br-1",
            NO_ERRORS,
        );
        assert!(
            why.ends_with("remove its route (sudo ip route delete)"),
            "{why}"
        );
        let why = trouble(NO_ERRORS, "services is forbidden");
        assert!(
            why.ends_with("give Services their addresses: services is forbidden"),
            "{why}"
        );
        // Once it has got over it, it is up.
        assert_eq!(
            read(&(status("no route", NO_ERRORS) + &status(NO_ERRORS, NO_ERRORS))),
            up
        );
    }

    #[test]
    fn what_it_says_outside_of_a_status_is_no_less_an_end() {
        for (line, part) in [
            (
                "X Exiting due to SVC_TUNNEL_START: error starting tunnel: error creating tunnel: another tunnel is already running, shut it down first",
                "end the other tunnel",
            ),
            ("[sudo] password for ana: ", "sudo -v"),
            ("* Tunnel successfully started", "through ssh to 127.0.0.1"),
        ] {
            let Some(Said::Trouble(why)) = read(line) else {
                panic!("{line}")
            };
            assert!(why.contains(part), "{why}");
        }
        assert_eq!(
            read("* NOTE: Please do not close this terminal as this process must stay alive"),
            None
        );
    }
}
