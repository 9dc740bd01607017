//! What minikube says that it exits for, and what to do about it.
//!
//! Start from [`sentence`]. `minikube start --output json` tells an error as an event with a name, every other
//! command as a line `Exiting due to NAME: …`. The names are minikube's own and stay the same from version to
//! version (`pkg/minikube/reason`); its advice is kept where we know nothing better.

use regex::Regex;
use serde_json::Value;

use crate::provider::Output;

/// The type of the events that tell errors.
const ERROR: &str = "io.k8s.sigs.minikube.error";

/// Why minikube exited.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Complaint {
    name: String,
    message: String,
    advice: String,
}

/// One sentence: why minikube exited, and what to do.
pub(super) fn sentence(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.exit_code;
    let Some(complaint) = by_event(&stdout)
        .or_else(|| by_line(&stderr))
        .or_else(|| by_line(&stdout))
    else {
        let mut lines = stderr.lines().chain(stdout.lines()).map(str::trim);
        let last = lines.rfind(|line| !line.is_empty());
        return format!(
            "minikube ended with exit code {code}: {}",
            last.unwrap_or("it wrote nothing")
        );
    };
    let Complaint { name, message, .. } = &complaint;
    format!(
        "minikube exits for {name} (exit code {code}): {message}{}",
        remedy(&complaint)
    )
}

fn by_event(stdout: &str) -> Option<Complaint> {
    let events = stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors = events.filter(|event| event["type"] == ERROR);
    let mut complaints = errors.filter_map(|event| {
        let text = |key: &str| one_line(event["data"][key].as_str().unwrap_or_default());
        // Without a name it is a remark about what may come.
        let name = text("name");
        (!name.is_empty()).then(|| Complaint {
            name,
            message: text("message"),
            advice: text("advice"),
        })
    });
    complaints.next_back()
}

fn by_line(text: &str) -> Option<Complaint> {
    let exiting = Regex::new(r"Exiting due to ([A-Z0-9_]+): (.*)").ok()?;
    let said = exiting.captures_iter(text).last()?;
    let suggestion = Regex::new(r"Suggestion: (.*)").ok()?;
    let advice = suggestion.captures(text).map(|found| one_line(&found[1]));
    Some(Complaint {
        name: said[1].to_owned(),
        message: one_line(&said[2]),
        advice: advice.unwrap_or_default(),
    })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What to do, as the end of a sentence.
fn remedy(complaint: &Complaint) -> String {
    let Complaint { name, advice, .. } = complaint;
    let driver = || {
        let driver = name.strip_prefix("PROVIDER_").unwrap_or_default();
        let end = driver.find("_NOT_").unwrap_or(driver.len());
        driver[..end].to_lowercase()
    };
    let other = "choose another driver by MINIKUBE_DRIVER (minikube.sigs.k8s.io/docs/drivers)";
    match name.as_str() {
        "DRV_NOT_DETECTED" | "DRV_NOT_HEALTHY" | "DRV_NOT_FOUND" => {
            format!("; install or mend a driver, and {other}")
        }
        "DRV_DOCKER_NOT_RUNNING" => format!("; start docker, or {other}"),
        "DRV_AS_ROOT" => format!("; run as an ordinary user who may use it, or {other}"),
        it if it.starts_with("PROVIDER_") && it.ends_with("_NOT_FOUND") => {
            format!("; install {}, or {other}", driver())
        }
        it if it.starts_with("PROVIDER_") && it.ends_with("_NOT_RUNNING") => {
            format!(
                "; start {}, or get the right to use it, or {other}",
                driver()
            )
        }
        it if it.starts_with("RSRC_") => {
            "; free what it lacks, or ask for less by STRATA_NODES=1, \
             MINIKUBE_MEMORY or MINIKUBE_CPUS"
                .to_owned()
        }
        it if it.starts_with("INET_") => {
            "; let this machine reach where minikube fetches from, or fetch it \
             beforehand where it can be had (minikube start --download-only)"
                .to_owned()
        }
        it if it.starts_with("K8S_")
            && (it.contains("UNSUPPORTED") || it.contains("DOWNGRADE")) =>
        {
            "; choose another STRATA_KUBERNETES_VERSION".to_owned()
        }
        _ if advice.is_empty() => String::new(),
        _ => format!("; minikube suggests: {advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(exit_code: i32, stdout: &str, stderr: &str) -> String {
        sentence(&Output {
            exit_code,
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }

    fn event(name: &str, code: i32, message: &str, advice: &str) -> String {
        format!(
            r#"{{"specversion":"1.0","id":"9c14843c","source":"https://minikube.sigs.k8s.io/","type":"io.k8s.sigs.minikube.error","datacontenttype":"application/json","data":{{"advice":"{advice}","exitcode":"{code}","issues":"","message":"{message}","name":"{name}","url":""}}}}"#
        )
    }

    #[test]
    fn each_failure_is_one_sentence_with_its_remedy() {
        for (name, code, message, advice, remedy) in [
            (
                "PROVIDER_DOCKER_NOT_FOUND",
                65,
                "The 'docker' provider was not found: exec: \\\"docker\\\": executable file not found in $PATH",
                "Install Docker",
                "install docker, or choose another driver by MINIKUBE_DRIVER",
            ),
            (
                "PROVIDER_DOCKER_NOT_RUNNING",
                63,
                "\\\"docker version\\\" exit status 1: Cannot connect to the Docker daemon",
                "Start the Docker service",
                "start docker, or get the right to use it",
            ),
            (
                "PROVIDER_KVM2_NOT_FOUND",
                65,
                "The 'kvm2' provider was not found",
                "Install libvirt",
                "install kvm2, or",
            ),
            (
                "DRV_NOT_HEALTHY",
                55,
                "Found driver(s) but none were healthy. See above for suggestions how to fix installed drivers.",
                "",
                "install or mend a driver",
            ),
            (
                "DRV_AS_ROOT",
                57,
                "The \\\"docker\\\" driver should not be used with root privileges.",
                "",
                "run as an ordinary user",
            ),
            (
                "RSRC_INSUFFICIENT_CORES",
                29,
                "Requested cpu count 2 is greater than the available cpus of 1",
                "",
                "STRATA_NODES=1",
            ),
            (
                "INET_CACHE_BINARIES",
                40,
                "Failed to cache binaries",
                "",
                "minikube start --download-only",
            ),
            (
                "K8S_OLD_UNSUPPORTED",
                106,
                "Kubernetes 1.15.0 is not supported by this release of minikube",
                "",
                "choose another STRATA_KUBERNETES_VERSION",
            ),
            (
                "GUEST_MISSING_CONNTRACK",
                86,
                "Sorry",
                "install conntrack",
                "minikube suggests: install conntrack",
            ),
        ] {
            let sentence = said(code, &event(name, code, message, advice), "");
            let begins = format!("minikube exits for {name} (exit code {code}): ");
            assert!(sentence.starts_with(&begins), "{sentence}");
            assert!(sentence.contains(remedy), "{sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }

    #[test]
    fn a_remark_is_no_error_and_the_last_error_counts() {
        let remark = r#"{"type":"io.k8s.sigs.minikube.error","data":{"message":"This container is having trouble accessing https://registry.k8s.io"}}"#;
        let step = r#"{"type":"io.k8s.sigs.minikube.step","data":{"currentstep":"0","message":"minikube v1.38.1","name":"Initial Minikube Setup","totalsteps":"19"}}"#;
        let error = event("GUEST_PROVISION", 80, "error provisioning guest", "");
        let stdout = format!("{step}\n{error}\n{remark}\n");
        assert_eq!(
            said(80, &stdout, ""),
            "minikube exits for GUEST_PROVISION (exit code 80): error provisioning guest"
        );
        assert_eq!(
            said(1, &format!("{step}\n{remark}"), "panic: runtime error"),
            format!("minikube ended with exit code 1: {remark}")
        );
        assert_eq!(
            said(1, "", ""),
            "minikube ended with exit code 1: it wrote nothing"
        );
    }

    #[test]
    fn other_commands_say_it_in_a_line() {
        let box_of_advice = "* If the above advice does not help, please let us know:\n* Please run `minikube logs --file=logs.txt` and attach logs.txt to the GitHub issue.";
        let stderr = format!(
            "\nX Exiting due to GUEST_IMAGE_LOAD: Failed to load image: save to dir: blob not found\n* Suggestion: Install Docker\n{box_of_advice}\n"
        );
        assert_eq!(
            said(80, "", &stderr),
            "minikube exits for GUEST_IMAGE_LOAD (exit code 80): Failed to load image: save to dir: blob not \
             found; minikube suggests: Install Docker"
        );
    }
}
