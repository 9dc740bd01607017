//! Builds the probe and embeds it.
//!
//! The probe runs in images FROM scratch, so it is linked statically. rustc refuses that without an
//! explicit target once a proc macro is in the graph, and a target would change where everything
//! else is built; so it is a cargo of its own with a target directory of its own. Whoever has no
//! compiler for it names one that was built elsewhere (`STRATA_PROBE_BINARY`).

use std::env;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The variable of a probe that is embedded as it is.
const GIVEN: &str = "STRATA_PROBE_BINARY";

fn main() -> ExitCode {
    match binary() {
        Ok(binary) => {
            println!("cargo::rustc-env=EMBEDDED_PROBE={}", binary.display());
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn binary() -> Result<PathBuf, String> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = package
        .parent()
        .ok_or("the package is no part of a workspace")?;
    println!("cargo::rerun-if-env-changed={GIVEN}");
    match env::var_os(GIVEN).filter(|path| !path.is_empty()) {
        Some(path) => given(workspace.join(path)),
        None => build(&package, workspace),
    }
}

fn given(binary: PathBuf) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-changed={}", binary.display());
    let wrong = |why: &str| format!("{GIVEN}={} {why}", binary.display());
    let mut magic = [0; 4];
    std::fs::File::open(&binary)
        .and_then(|mut file| file.read_exact(&mut magic))
        .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    if magic != *b"\x7fELF" {
        return Err(wrong(
            "is no program for Linux, where pods run; build the probe for that",
        ));
    }
    Ok(binary)
}

fn build(package: &Path, workspace: &Path) -> Result<PathBuf, String> {
    for input in [
        package.join("probe/src"),
        package.join("probe/Cargo.toml"),
        workspace.join("Cargo.toml"),
        workspace.join("Cargo.lock"),
    ] {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    let Target {
        triple: target,
        tools,
    } = target()?;
    let directory = directory()?;
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .args([
            "build",
            "--locked",
            "--package",
            "strata-probe",
            "--bin",
            "strata-probe",
        ])
        .args([
            "--features",
            "bin",
            "--profile",
            "probe",
            "--target",
            &target,
        ])
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&directory)
        .stdin(Stdio::null());
    clean(&mut cargo);
    for (name, value) in tools {
        // What a person says of them counts.
        if env::var_os(&name).is_none() {
            cargo.env(name, value);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    let output = cargo
        .output()
        .map_err(|error| format!("cannot run cargo to build the probe: {error}"))?;
    if !output.status.success() {
        return Err(explain(&String::from_utf8_lossy(&output.stderr), &target));
    }
    let binary = directory.join(&target).join("probe/strata-probe");
    if binary.is_file() {
        Ok(binary)
    } else {
        Err(format!(
            "the probe was built, but not as {}",
            binary.display()
        ))
    }
}

/// What the probe is built for, and by which tools.
struct Target {
    triple: String,
    /// Variables that cargo and build scripts read.
    tools: Vec<(String, String)>,
}

/// Pods run on the machine that runs the harness, or in a virtual one on it, so the probe is built
/// for its processor. On Linux the C library is glibc, whose static archive comes with its headers;
/// elsewhere musl, which rustup's target carries with all that is linked. Its headers are not there, and
/// what is in C (ring) does without if it is told; and any clang compiles for any machine.
fn target() -> Result<Target, String> {
    let (os, machine) = (
        variable("CARGO_CFG_TARGET_OS")?,
        variable("CARGO_CFG_TARGET_ARCH")?,
    );
    match os.as_str() {
        "linux" => Ok(Target {
            triple: format!("{machine}-unknown-linux-gnu"),
            tools: Vec::new(),
        }),
        "macos" => {
            let triple = format!("{machine}-unknown-linux-musl");
            let name = triple.replace('-', "_");
            let linker = format!("CARGO_TARGET_{}_LINKER", name.to_uppercase());
            let no_headers = "-ffreestanding -nostdlibinc -DRING_CORE_NOSTDLIBINC=1";
            Ok(Target {
                tools: vec![
                    (linker, "rust-lld".to_owned()),
                    (format!("CC_{name}"), "clang".to_owned()),
                    (format!("CFLAGS_{name}"), no_headers.to_owned()),
                ],
                triple,
            })
        }
        _ => Err(format!("strata runs on Linux and macOS, not on {os}")),
    }
}

/// Below the outer cargo's target directory, so that `cargo clean` takes it too, and the same for
/// every profile, so that it is built once: `OUT_DIR` is `<target>/<profile>/build/<package>/out`.
fn directory() -> Result<PathBuf, String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let profile = out
        .ancestors()
        .find(|dir| dir.ends_with("build"))
        .and_then(Path::parent);
    let target = profile.and_then(Path::parent).unwrap_or(&out);
    Ok(target.join("probe"))
}

/// What the outer cargo and its wrappers tell their children is about another build: flags and
/// compilers of clippy or of a coverage run, a jobserver's descriptors, features, profiles. Where
/// crates come from and which linker there is holds for both.
fn clean(cargo: &mut Command) {
    const OTHERS: [&str; 10] = [
        "CLIPPY_ARGS",
        "DEBUG",
        "HOST",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "TARGET",
    ];
    const OF_BOTH: [&str; 4] = [
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_SOURCE_",
    ];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let linker = text.starts_with("CARGO_TARGET_") && text.ends_with("_LINKER");
        let of_both = OF_BOTH.iter().any(|prefix| text.starts_with(prefix));
        let kept = linker || of_both || ["CARGO", "CARGO_HOME"].contains(&text);
        let of_a_build = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOCFLAGS"];
        let of_the_outer = of_a_build.iter().any(|prefix| text.starts_with(prefix));
        if (of_the_outer && !kept) || OTHERS.contains(&text) {
            cargo.env_remove(&name);
        }
    }
}

/// The compiler's own words, after the sentence that says what to do about the usual reason.
fn explain(stderr: &str, target: &str) -> String {
    let remedy = if stderr.contains("target may not be installed") {
        format!("; run rustup target add {target}")
    } else if stderr.contains("cannot find -lc") || stderr.contains("linker `cc` not found") {
        "; install a C compiler and glibc's static library (Debian: gcc libc6-dev, Fedora: gcc \
         glibc-static)"
            .to_owned()
    } else if stderr.contains("failed to find tool \"clang\"") {
        "; install clang (on macOS: xcode-select --install)".to_owned()
    } else if stderr.contains("linker `rust-lld` not found") {
        "; take Rust from https://rustup.rs, which comes with that linker".to_owned()
    } else {
        String::new()
    };
    // Each line is a directive of its own, or cargo would show the first alone.
    let said: Vec<_> = stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    for line in said.iter().skip(said.len().saturating_sub(30)) {
        println!("cargo::warning={line}");
    }
    format!(
        "the probe could not be built for {target}{remedy}; or set {GIVEN} to one that was built elsewhere \
         (harness/probe/README.md)"
    )
}

fn variable(name: &str) -> Result<String, String> {
    let value: Option<OsString> = env::var_os(name);
    value
        .and_then(|value| value.into_string().ok())
        .ok_or_else(|| format!("{name} is not set; build with cargo"))
}
