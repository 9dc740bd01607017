//! TCP: every byte back, then who it was.

use std::sync::Arc;

use strata_probe::Protocol;
use tokio::io::{AsyncWriteExt, copy};
use tokio::net::TcpStream;

use super::state::State;

/// Echoes until the client ends its side, then answers and ends ours. A client that vanishes, vanishes.
pub(crate) async fn echo(state: Arc<State>, mut stream: TcpStream) {
    let (Ok(client), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    let (mut reader, mut writer) = stream.split();
    let Ok(echoed) = copy(&mut reader, &mut writer).await else {
        return;
    };
    let answer = state.answer(client, local, Protocol::Tcp, echoed);
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    if writer.write_all(&line).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}
