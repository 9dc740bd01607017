//! TCP: every byte back, then who it was; or who it is at once.

use std::net::SocketAddr;
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
    if writer
        .write_all(&line(&state, (client, local), echoed))
        .await
        .is_ok()
    {
        let _ = writer.shutdown().await;
    }
}

/// Answers and ends our side, then listens until the client ends its own.
pub(crate) async fn speak(state: Arc<State>, mut stream: TcpStream) {
    let (Ok(client), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    let line = line(&state, (client, local), 0);
    if stream.write_all(&line).await.is_ok() && stream.shutdown().await.is_ok() {
        let _ = copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

fn line(state: &State, (client, local): (SocketAddr, SocketAddr), length: u64) -> Vec<u8> {
    state.asked();
    let answer = state.answer(client, local, Protocol::Tcp, length);
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    line
}
