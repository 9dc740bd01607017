//! A lab that cannot be is refused in one sentence that names the thing and the remedy.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use strata_lab::boot::LabConfig;

use crate::embed::{self, Embedding, Place, refused};
use crate::life::Cluster;
use crate::{Case, Who};

pub(crate) const CASES: &[Case] = &[
    ("refuses_what_no_lab_can_be", impossible),
    ("names_the_program_or_file_that_is_missing", missing),
    ("names_the_sysctl_that_forbids_user_namespaces", forbidden),
    ("names_the_filter_that_forbids_namespaces", filtered),
    ("says_that_proc_is_masked", masked),
    ("does_without_a_user_namespace_as_root", without),
];

fn refusal(who: Who, config: &LabConfig) -> String {
    let place = Place::new();
    let mut command = Command::new(place.program());
    refused(&place, embed::by(who, &mut command), config)
}

fn impossible(who: Who) {
    for workers in [0, 51] {
        let config = LabConfig {
            workers,
            ..embed::config()
        };
        let expected = format!("a lab has 1 to 50 workers, not {workers}");
        assert_eq!(refusal(who, &config), expected);
    }
}

fn missing(who: Who) {
    let nothing = PathBuf::from("/nonexistent/thing");
    let nft = LabConfig {
        nft: nothing.clone(),
        ..embed::config()
    };
    let envoy = LabConfig {
        envoy: Some(nothing.clone()),
        ..embed::config()
    };
    let image = LabConfig {
        images: vec![nothing.clone()],
        ..embed::config()
    };
    let broken = LabConfig {
        images: vec!["/etc/hostname".into()],
        ..embed::config()
    };
    let log = LabConfig {
        log: Some(nothing),
        ..embed::config()
    };
    for (config, expected) in [
        (
            nft,
            "the lab programs Services with nft, but cannot start /nonexistent/thing: No such file or directory (os error 2): install nftables, or say where nft is",
        ),
        (
            envoy,
            "the image of the host's Envoy: /nonexistent/thing was not found: No such file or directory (os error 2)",
        ),
        (
            image,
            "cannot load image archive /nonexistent/thing: No such file or directory (os error 2)",
        ),
        (
            broken,
            "cannot load image archive /etc/hostname: this is not an image archive",
        ),
        (
            log,
            "cannot write the lab's log /nonexistent/thing: No such file or directory (os error 2)",
        ),
    ] {
        let said = refusal(who, &config);
        assert!(said.starts_with(expected), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

/// `unshare` with these options, running a shell script that ends in the embedding program.
fn enclosed(who: Who, options: &[&str], script: &str, place: &Place) -> Command {
    let mut command = Command::new("unshare");
    embed::by(who, &mut command)
        .args(options)
        .args(["sh", "-c", script])
        .arg(place.program());
    command
}

fn forbidden(who: Who) {
    let place = Place::new();
    // The limit is one of the user namespace that it is set in, so this is nobody else's.
    let options = [
        "--user",
        "--map-user=1000",
        "--map-group=1000",
        "--keep-caps",
    ];
    let script = r#"echo 0 >/proc/sys/user/max_user_namespaces &&
        exec setpriv --ambient-caps=-all --inh-caps=-all "$0" "$@""#;
    let said = refused(
        &place,
        &mut enclosed(who, &options, script, &place),
        &embed::config(),
    );
    assert_eq!(
        said,
        "this process may not make the namespaces that the lab runs in, because user.max_user_namespaces is 0: set it with `sudo sysctl -w user.max_user_namespaces=15000`, or run as root"
    );
}

fn without(who: Who) {
    let place = Place::new();
    let script = r#"echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" "$@""#;
    let mut command = enclosed(who, &["--user", "--map-root-user"], script, &place);
    command.stdin(std::process::Stdio::piped());
    let embedding = Embedding::start_as(place, &mut command, &embed::config());
    assert_eq!(
        embedding.lab["nsenter"],
        serde_json::json!(["nsenter", "-n", "-t"])
    );
    assert_eq!(Cluster::of(&embedding).ready_nodes().len(), 3);
    embedding.end();
}

fn masked(who: Who) {
    let place = Place::new();
    let options = ["--user", "--map-root-user", "--mount"];
    let script = r#"mount --bind /dev/null /proc/uptime && exec "$0" "$@""#;
    let said = refused(
        &place,
        &mut enclosed(who, &options, script, &place),
        &embed::config(),
    );
    assert!(
        said.starts_with("the lab may not mount its own /proc, because parts of this one are masked, as in an ordinary container: start the container with `--security-opt"),
        "{said}"
    );
}

/// What container engines do: `unshare` is not allowed.
fn filtered(who: Who) {
    // Is AppArmor what forbids it here anyway, that is what is said.
    let apparmor = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    if fs::read_to_string(apparmor).is_ok_and(|value| value.trim() == "1") {
        return;
    }
    let place = Place::new();
    let mut command = Command::new(place.program());
    embed::by(who, &mut command);
    // SAFETY: both calls are async-signal-safe, and the program outlives them.
    unsafe {
        command.pre_exec(|| {
            let number = u32::try_from(libc::SYS_unshare).unwrap_or_default();
            let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
            let load =
                u16::try_from(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS).unwrap_or_default();
            let equal =
                u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).unwrap_or_default();
            let answer = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or_default();
            let statement = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
            let mut filter = [
                statement(load, 0, 0, 0),
                statement(equal, number, 0, 1),
                statement(answer, refuse, 0, 0),
                statement(answer, libc::SECCOMP_RET_ALLOW, 0, 0),
            ];
            let program = libc::sock_fprog {
                len: 4,
                filter: filter.as_mut_ptr(),
            };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
                || libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::c_ulong::from(libc::SECCOMP_MODE_FILTER),
                    &raw const program,
                ) < 0
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let said = refused(&place, &mut command, &embed::config());
    assert!(
        said.contains("because a seccomp filter forbids it, as in an ordinary container: start the container with `--security-opt seccomp=unconfined"),
        "{said}"
    );
}
