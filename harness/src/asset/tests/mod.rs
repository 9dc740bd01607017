//! Fetching from servers that truncate, stall, redirect and lie. No test sleeps: where something has
//! to take too long, too long is made short.

mod origins;
pub(crate) mod server;
mod trouble;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::server::{Asked, Said, Server};
use super::*;

/// So large that it comes in many reads, and no two of its parts are alike.
fn body() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

const HALF: usize = 200_000;

/// Where a good answer and one that does not fit it are never taken for one another.
const TAG: &str = "\"one\"";

/// For servers that answer: far longer than anything here takes.
const PATIENT: Patience = Patience {
    quiet: Duration::from_secs(60),
    least: 1 << 10,
    tries: 3,
    pause: Duration::ZERO,
};

/// For servers that do not. A machine with much to do may be quiet for so long by itself, so no test
/// that is this hasty counts how often a good server was asked.
const HASTY: Patience = Patience {
    quiet: Duration::from_millis(300),
    ..PATIENT
};

fn sum_of(bytes: &[u8]) -> Sum {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    Sum {
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        length: Some(bytes.len() as u64),
    }
}

/// The asset `thing`, at an address, pinned to these bytes.
fn pinned(url: &str, bytes: &[u8]) -> Catalogue {
    let Sum { sha256, length } = sum_of(bytes);
    let length = length.unwrap();
    let entry =
        format!("[{{name: thing, version: v1, url: '{url}', sha256: {sha256}, length: {length}}}]");
    Catalogue::parse(&entry, "pins").unwrap()
}

/// The same without a pin.
fn unpinned(url: &str) -> Catalogue {
    let entry = format!("[{{name: thing, version: v1, url: '{url}', sha256: beside}}]");
    Catalogue::parse(&entry, "pins").unwrap()
}

/// A cache, and what is asked of it.
struct Desk {
    dir: tempfile::TempDir,
    assets: Assets,
}

impl Desk {
    fn new(catalogue: Catalogue) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let assets = Assets {
            catalogue,
            origin: Origin::Upstream,
            cache: Some(dir.path().to_owned()),
            way: Way::default(),
            patience: PATIENT,
        };
        Self { dir, assets }
    }

    /// One of these bytes, which a server offers as `/thing.yaml`.
    fn of(server: &Server, bytes: &[u8]) -> Self {
        Self::new(pinned(&server.url("thing.yaml"), bytes))
    }

    fn hasty(mut self) -> Self {
        self.assets.patience = HASTY;
        self
    }

    async fn get(&self) -> Result<PathBuf, AssetError> {
        self.assets.get("thing", &|_| {}).await
    }

    /// The same in a person's words: what went wrong, from the outside in.
    async fn sentence(&self) -> String {
        let error = self.get().await.unwrap_err();
        format!("{:#}", anyhow::Error::from(error))
    }

    /// What there is in the cache.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let inside = path.strip_prefix(self.dir.path()).unwrap();
                    names.push(inside.display().to_string());
                }
            }
        }
        names.sort();
        names
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join("thing/v1").join(name)
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn ranges(server: &Server) -> Vec<Option<usize>> {
    server.asked().iter().map(Asked::from).collect()
}

#[tokio::test]
async fn what_was_fetched_once_is_not_asked_for_again() {
    let server = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let desk = Desk::of(&server, &body());
    let said = std::sync::Mutex::new(Vec::new());
    let path = desk
        .assets
        .get("thing", &|line| said.lock().unwrap().push(line.to_owned()))
        .await
        .unwrap();
    assert_eq!(path, desk.place("thing.yaml"));
    assert_eq!(read(&path), body());
    assert_eq!(desk.names(), ["thing/v1/thing.yaml"]);
    assert_eq!(desk.get().await.unwrap(), path);
    assert_eq!(server.asked().len(), 1);
    let said = said.into_inner().unwrap();
    let last = said.last().unwrap();
    assert_eq!(last, "fetching thing v1: 100 % of 390.62 KiB");
    assert!(said.len() <= 6, "{said:?}");
}

#[tokio::test]
async fn what_was_changed_in_the_cache_is_fetched_again() {
    let server = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let desk = Desk::of(&server, &body());
    let path = desk.get().await.unwrap();
    let mut changed = body();
    changed[7] ^= 1;
    std::fs::write(&path, changed).unwrap();
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn what_is_cut_short_goes_on_where_it_was_cut() {
    let server = Server::new(|count, asked| {
        let said = Said::file(asked, TAG, &body());
        if count < 3 { said.cut(100_000) } else { said }
    })
    .await;
    let desk = Desk::of(&server, &body());
    assert_eq!(read(&desk.get().await.unwrap()), body());
    // The third brings nothing: what it would is cut off.
    assert_eq!(
        ranges(&server),
        [None, Some(300_000), Some(300_000), Some(300_000)]
    );
    assert_eq!(server.asked()[1].header("if-range"), Some(TAG));
    assert_eq!(
        server.asked()[0].header("accept-encoding"),
        Some("identity")
    );
}

#[tokio::test]
async fn what_ends_with_its_connection_may_have_been_cut() {
    let server = Server::new(|count, asked| match count {
        0 => Said::new(
            200,
            &[("without-length", "1"), ("etag", TAG)],
            &body()[..HALF],
        ),
        _ => Said::file(asked, TAG, &body()),
    })
    .await;
    let desk = Desk::of(&server, &body());
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(ranges(&server), [None, Some(HALF)]);
}

#[tokio::test]
async fn what_stops_coming_is_asked_for_again_from_there() {
    let server = Server::new(|count, asked| {
        let said = Said::file(asked, TAG, &body());
        if count == 0 {
            said.cut(HALF).and_hang()
        } else {
            said
        }
    })
    .await;
    let mut desk = Desk::of(&server, &body()).hasty();
    desk.assets.patience.tries = 100;
    assert_eq!(read(&desk.get().await.unwrap()), body());
    let ranges = ranges(&server);
    assert_eq!(ranges[..2], [None, Some(HALF)]);
    assert!(
        ranges[2..].iter().all(|from| *from >= Some(HALF)),
        "{ranges:?}"
    );
}

#[tokio::test]
async fn who_never_gives_enough_is_given_up() {
    // Nothing at all; no body; and a body that drips.
    for bytes in [0, 60, 400] {
        let server = Server::new(move |_, asked| {
            let mut said = Said::file(asked, TAG, &body()).and_hang();
            said.keep(bytes);
            said
        })
        .await;
        let desk = Desk::of(&server, &body()).hasty();
        let sentence = desk.sentence().await;
        assert!(
            sentence
                .starts_with("thing v1 could not be fetched in 3 tries that brought no more of it"),
            "{sentence}"
        );
        assert!(sentence.contains("sent less than 1024 bytes"), "{sentence}");
        assert!((1..=3).contains(&server.asked().len()), "{bytes}");
    }
}

#[tokio::test]
async fn a_run_that_was_interrupted_is_gone_on_with() {
    let server = Server::new(|count, asked| {
        let said = Said::file(asked, TAG, &body());
        if count == 0 {
            said.cut(HALF).and_hang()
        } else {
            said
        }
    })
    .await;
    let desk = Desk::of(&server, &body());
    let partial = desk.place("thing.yaml.partial");
    let there = async {
        while std::fs::metadata(&partial).map_or(0, |it| it.len()) < HALF as u64 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = desk.get() => panic!("it cannot have come to its end"),
        () = there => {}
    }
    let left = [
        "thing/v1/thing.yaml.partial",
        "thing/v1/thing.yaml.partial.etag",
    ];
    assert_eq!(desk.names(), left);
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(ranges(&server), [None, Some(HALF)]);
    assert_eq!(desk.names(), ["thing/v1/thing.yaml"]);
}

#[tokio::test]
async fn of_several_at_once_one_fetches() {
    let server = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let desk = Desk::of(&server, &body());
    let all = futures::future::join_all((0..8).map(|_| desk.get())).await;
    for path in all {
        assert_eq!(read(&path.unwrap()), body());
    }
    assert_eq!(server.asked().len(), 1);
    assert_eq!(desk.names(), ["thing/v1/thing.yaml"]);
}

#[tokio::test]
async fn who_holds_it_and_does_nothing_is_named() {
    let server = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let mut desk = Desk::of(&server, &body()).hasty();
    std::fs::create_dir_all(desk.place("")).unwrap();
    let held = partial::Partial::open(&desk.place("thing.yaml")).unwrap();
    let sentence = desk.sentence().await;
    assert!(sentence.starts_with("another run has"), "{sentence}");
    assert!(sentence.contains("thing.yaml.partial locked"), "{sentence}");
    drop(held);
    desk.assets.patience = PATIENT;
    assert_eq!(read(&desk.get().await.unwrap()), body());
}
