//! Ctrl-C and SIGTERM: the first ends the run in order, the second at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::progress::tell;
use crate::exit::Exit;

/// Whether the run is to end, and why.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    token: CancellationToken,
    by: Arc<AtomicU8>,
}

impl Stop {
    pub(super) async fn asked(&self) {
        self.token.cancelled().await;
    }

    pub(super) fn by(&self) -> Option<Exit> {
        let code = self.by.load(Ordering::SeqCst);
        [Exit::Interrupted, Exit::Terminated]
            .into_iter()
            .find(|exit| exit.code() == code)
    }

    fn ask(&self, exit: Exit) {
        self.by.store(exit.code(), Ordering::SeqCst);
        self.token.cancel();
    }
}

/// Listens until it is aborted.
pub(super) async fn listen(stop: Stop) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    let exit = next(&mut interrupt, &mut terminate).await;
    stop.ask(exit);
    tell(format_args!(
        "{}; cleaning up (once more to end at once)",
        exit.meaning()
    ));
    let exit = next(&mut interrupt, &mut terminate).await;
    std::process::exit(i32::from(exit.code()));
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> Exit {
    tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    }
}
