//! Images for a lab that runs: `POST /lab/v1/images` loads the archive that is its body.
//!
//! Start from [`routes`]. The body goes to a file without a name on the lab's tmpfs, so its size is
//! bounded by that, and what the lab has of it in memory is a piece at a time. Rule: whatever is
//! wrong with an archive is answered after all of it was read, since a client that is still sending
//! does not listen.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt;
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use crate::api::status::Status;
use crate::node::images::Store;

#[derive(Debug, Serialize)]
struct Loaded {
    /// The names of all the images, in full.
    images: Vec<String>,
}

/// The route.
pub(super) fn routes(images: Arc<Store>) -> Router {
    Router::new()
        .route("/lab/v1/images", post(load))
        .with_state(images)
}

async fn load(State(images): State<Arc<Store>>, body: Body) -> Response {
    match loaded(images, body).await {
        Ok(images) => Json(Loaded { images }).into_response(),
        Err(status) => status.into_response(),
    }
}

async fn loaded(images: Arc<Store>, body: Body) -> Result<Vec<String>, Status> {
    let internal = |error: io::Error| Status::internal(format!("images: {error}"));
    let scratch = images.scratch().map_err(internal)?;
    let archive = receive(body, scratch).await?;
    let loaded = tokio::task::spawn_blocking(move || images.load(archive)).await;
    let loaded = loaded.map_err(|error| internal(error.into()))?;
    let names = loaded.map_err(|error| {
        if is_full(&error) {
            return full();
        }
        Status::bad_request(format!("{error:#}"))
    })?;
    tracing::info!(?names, "loaded");
    Ok(names)
}

/// Writes the body to the file.
async fn receive(body: Body, file: File) -> Result<File, Status> {
    let mut file = tokio::fs::File::from_std(file);
    let mut chunks = body.into_data_stream();
    let mut written = Ok(());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Status::bad_request(format!("the image archive did not come whole: {error}"))
        })?;
        if written.is_ok() {
            written = file.write_all(&chunk).await;
        }
    }
    let flushed = match written {
        Ok(()) => file.flush().await,
        Err(error) => Err(error),
    };
    let mut file = file.into_std().await;
    let rewound = flushed.and_then(|()| file.seek(SeekFrom::Start(0)));
    rewound.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => full(),
        _ => Status::internal(format!("images: {error}")),
    })?;
    Ok(file)
}

fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::StorageFull)
    })
}

fn full() -> Status {
    Status::bad_request(
        "the lab's file system is full: it is in memory, and as large as half of the machine's; load smaller images, or begin a new lab",
    )
}
