//! Fetches upstream assets into a folder, for machines without the internet: `scripts/assets`.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use strata::asset::{Asset, Assets};
use strata::exit::Exit;
use strata::settings::{BadInput, Settings};

const USAGE: &str = "\
usage: scripts/assets FOLDER [NAME…]

Fetches what manifests/assets.yaml pins (all of it, or what is named) into FOLDER, verified, for
STRATA_ASSETS=FOLDER on a machine without the internet, or for a web server there. What is in FOLDER
already is verified again and not fetched; what was interrupted goes on.
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((folder, names)) if !folder.starts_with('-') => fill(Path::new(folder), names)
            .unwrap_or_else(|bad| {
                tell(&format!("{bad}"));
                Exit::BadInput.into()
            }),
        Some((help, [])) if ["-h", "--help"].contains(&help.as_str()) => {
            let _ = std::io::stdout().write_all(USAGE.as_bytes());
            ExitCode::SUCCESS
        }
        _ => {
            let _ = std::io::stderr().write_all(USAGE.as_bytes());
            Exit::BadInput.into()
        }
    }
}

fn fill(folder: &Path, names: &[String]) -> Result<ExitCode, BadInput> {
    std::fs::create_dir_all(folder)
        .map_err(|error| BadInput(format!("{} cannot be made ({error})", folder.display())))?;
    let assets = Assets::new(&Settings::from_env()?)?.into_folder(folder)?;
    let chosen = chosen(&assets, names)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| BadInput(format!("cannot be started ({error})")))?;
    let mut failed = 0;
    for asset in &chosen {
        let shown = Shown::new();
        match runtime.block_on(assets.file(asset, &|message| shown.say(message))) {
            Ok(path) => {
                shown.clear();
                tell(&format!("{} is in {}", asset.shown(), path.display()));
            }
            Err(error) => {
                shown.clear();
                failed += 1;
                tell(&format!("{:#}", anyhow::Error::from(error)));
            }
        }
    }
    if failed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    tell(&format!(
        "{failed} of {} could not be fetched",
        chosen.len()
    ));
    Ok(ExitCode::FAILURE)
}

fn chosen<'a>(assets: &'a Assets, names: &[String]) -> Result<Vec<&'a Asset>, BadInput> {
    let named = |name: &String| {
        let found: Vec<_> = assets
            .listed()
            .iter()
            .filter(|asset| asset.name == *name)
            .collect();
        if found.is_empty() {
            // One for several machines is there once for each.
            let mut all: Vec<_> = assets.listed().iter().map(|it| it.name.as_str()).collect();
            all.dedup();
            return Err(BadInput(format!(
                "{name} is no asset; there are {}",
                all.join(", ")
            )));
        }
        Ok(found)
    };
    if names.is_empty() {
        return Ok(assets.listed().iter().collect());
    }
    let found: Result<Vec<_>, _> = names.iter().map(named).collect();
    found.map(|found| found.into_iter().flatten().collect())
}

/// How far it is: a spinner on a terminal, lines elsewhere.
struct Shown(Option<ProgressBar>);

impl Shown {
    fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        }))
    }

    fn say(&self, message: &str) {
        match &self.0 {
            Some(spinner) => spinner.set_message(message.to_owned()),
            None => tell(message),
        }
    }

    fn clear(&self) {
        if let Some(spinner) = &self.0 {
            spinner.finish_and_clear();
        }
    }
}

/// Who reads no longer is no reason to end.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "assets: {line}");
}
