//! What a person sees while a layer comes up: a spinner on a terminal, plain lines elsewhere.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::stack::Layer;

/// Says a line to the person. One who reads no longer is no reason to end, which a panic would be.
pub(super) fn tell(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "strata: {line}");
}

pub(super) struct Progress {
    layer: Layer,
    started: Instant,
    spinner: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn of(layer: Layer) -> Self {
        // Standard error, since standard output is for results that a program may read.
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_prefix(layer.name());
            if let Ok(style) =
                indicatif::ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")
            {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self {
            layer,
            started: Instant::now(),
            spinner,
        }
    }

    pub(super) fn say(&self, message: &str) {
        tracing::info!(layer = self.layer.name(), "{message}");
        match &self.spinner {
            Some(spinner) => spinner.set_message(message.to_owned()),
            None => tell(format_args!("{}: {message}", self.layer)),
        }
    }

    pub(super) fn up(self) {
        let text = format!(
            "{} is up after {:.1} s",
            self.layer,
            self.started.elapsed().as_secs_f64()
        );
        tracing::info!("{text}");
        self.clear();
        tell(text);
    }

    fn clear(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
