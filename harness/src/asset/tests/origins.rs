//! Mirrors, folders, proxies, private authorities, and sums that are not pinned.

use super::*;
use crate::asset::tests::server::{Authority, Tunnel};

#[tokio::test]
async fn a_mirror_has_it_at_its_place() {
    let server = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let mut desk = Desk::new(pinned("https://upstream.invalid/a/thing.yaml", &body()));
    let mirror = server.url("mirror").replace("http://", "http://me:secret@");
    desk.assets.origin = Origin::of(Some(&mirror)).unwrap();
    assert_eq!(read(&desk.get().await.unwrap()), body());
    let asked = &server.asked()[0];
    assert_eq!(asked.target, "/mirror/thing/v1/thing.yaml");
    assert_eq!(asked.header("authorization"), Some("Basic bWU6c2VjcmV0"));

    let refusing = Server::new(|_, _| Said::new(401, &[], b"")).await;
    let mut desk = Desk::new(pinned("https://upstream.invalid/a/thing.yaml", &body()));
    let mirror = refusing.url("").replace("http://", "http://me:secret@");
    desk.assets.origin = Origin::of(Some(&mirror)).unwrap();
    let sentence = desk.sentence().await;
    assert!(sentence.contains("it wants credentials"), "{sentence}");
    assert!(!sentence.contains("secret"), "{sentence}");
}

#[tokio::test]
async fn a_folder_is_used_as_it_is() {
    let filled = Desk::new(pinned("https://upstream.invalid/a/thing.yaml", &body()));
    std::fs::create_dir_all(filled.place("")).unwrap();
    std::fs::write(filled.place("thing.yaml"), body()).unwrap();
    let mut desk = Desk::new(pinned("https://upstream.invalid/a/thing.yaml", &body()));
    desk.assets.origin = Origin::Folder(filled.dir.path().to_owned());
    assert_eq!(desk.get().await.unwrap(), filled.place("thing.yaml"));
    assert!(desk.names().is_empty());
    assert_eq!(filled.names(), ["thing/v1/thing.yaml"]);

    std::fs::write(filled.place("thing.yaml"), "other").unwrap();
    let sentence = desk.sentence().await;
    assert!(
        sentence.contains(&sum_of(b"other").to_string()),
        "{sentence}"
    );
    assert!(
        sentence.contains(&sum_of(&body()).to_string()),
        "{sentence}"
    );

    std::fs::remove_file(filled.place("thing.yaml")).unwrap();
    let sentence = desk.sentence().await;
    assert!(
        sentence.starts_with("STRATA_ASSETS has no thing v1: "),
        "{sentence}"
    );
    assert!(sentence.contains("run scripts/assets where"), "{sentence}");
}

#[tokio::test]
async fn a_cache_of_one_machine_is_the_folder_of_another() {
    let server = Server::new(|_, asked| {
        if asked.target.ends_with(".sha256") {
            let sum = format!("{}  thing.yaml\n", sum_of(&body()).sha256);
            return Said::new(200, &[], sum.as_bytes());
        }
        Said::file(asked, TAG, &body())
    })
    .await;
    let online = Desk::new(unpinned(&server.url("thing.yaml")));
    online.get().await.unwrap();
    let mut offline = Desk::new(unpinned("https://upstream.invalid/thing.yaml"));
    offline.assets.origin = Origin::Folder(online.dir.path().to_owned());
    assert_eq!(read(&offline.get().await.unwrap()), body());
    std::fs::remove_file(online.place("thing.yaml.sha256")).unwrap();
    let sentence = offline.sentence().await;
    assert!(
        sentence.starts_with("STRATA_ASSETS has no sum of thing v1"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_sum_that_is_not_pinned_is_believed_once() {
    let server = Server::new(|_, asked| {
        if asked.target.ends_with(".sha256") {
            let sum = format!("{}  thing.yaml\n", sum_of(&body()).sha256);
            return Said::new(200, &[], sum.as_bytes());
        }
        Said::file(asked, TAG, &body())
    })
    .await;
    let desk = Desk::new(unpinned(&server.url("thing.yaml")));
    let path = desk.get().await.unwrap();
    assert_eq!(
        desk.names(),
        ["thing/v1/thing.yaml", "thing/v1/thing.yaml.sha256"]
    );
    desk.get().await.unwrap();
    assert_eq!(server.asked().len(), 2);

    // Its publisher has another file now, and a sum that fits it.
    let changed = Server::new(|_, asked| {
        let sum = sum_of(b"changed").sha256;
        let body = if asked.target.ends_with(".sha256") {
            sum.as_bytes()
        } else {
            b"changed"
        };
        Said::new(200, &[], body)
    })
    .await;
    std::fs::remove_file(path).unwrap();
    let mut later = Desk::new(unpinned(&changed.url("thing.yaml")));
    later.assets.cache.clone_from(&desk.assets.cache);
    let sentence = later.sentence().await;
    assert!(
        sentence.contains("thing.yaml.sha256 says SHA-256 "),
        "{sentence}"
    );
    assert!(sentence.contains(&sum_of(&body()).sha256), "{sentence}");
    assert_eq!(changed.asked().len(), 1);
    assert_eq!(desk.names(), ["thing/v1/thing.yaml.sha256"]);
}

#[tokio::test]
async fn what_has_no_sum_anywhere_is_believed_the_first_time() {
    let authority = Authority::new(&["localhost"]);
    let first = Server::with_tls(authority.acceptor(), |_, asked| {
        Said::file(asked, TAG, &body())
    })
    .await;
    let desk_of = |server: &Server| {
        let url = format!("https://localhost:{}/thing.yaml", server.address.port());
        let entry = format!("[{{name: thing, version: v1, url: '{url}', sha256: first}}]");
        let mut desk = Desk::new(Catalogue::parse(&entry, "pins").unwrap());
        desk.assets.way.authorities = vec![authority.pem.clone().into_bytes()];
        desk
    };
    let desk = desk_of(&first);
    let path = desk.get().await.unwrap();
    assert_eq!(read(&path), body());
    let recorded = ["thing/v1/thing.yaml", "thing/v1/thing.yaml.sha256"];
    assert_eq!(desk.names(), recorded);
    desk.get().await.unwrap();
    assert_eq!(first.asked().len(), 1);

    // Another file ever after is not believed.
    let changed =
        Server::with_tls(authority.acceptor(), |_, _| Said::new(200, &[], b"changed")).await;
    std::fs::remove_file(path).unwrap();
    let mut later = desk_of(&changed);
    later.assets.cache.clone_from(&desk.assets.cache);
    let sentence = later.sentence().await;
    assert!(sentence.contains(&sum_of(&body()).sha256), "{sentence}");
    assert_eq!(desk.names(), recorded[1..]);

    let plain = "[{name: thing, version: v1, url: 'http://a/thing.yaml', sha256: first}]";
    let bad = Catalogue::parse(plain, "pins").unwrap_err().0;
    assert!(
        bad.contains("believed the first time, and its url is no https"),
        "{bad}"
    );
}

#[tokio::test]
async fn what_is_no_sum_is_not_believed() {
    let server = Server::new(|_, _| Said::new(200, &[], b"<html>Log in first</html>")).await;
    let desk = Desk::new(unpinned(&server.url("thing.yaml")));
    let sentence = desk.sentence().await;
    assert!(
        sentence.contains("/thing.yaml.sha256 is no SHA-256 of thing.yaml"),
        "{sentence}"
    );
    assert!(desk.names().is_empty(), "{:?}", desk.names());

    let wrong = Server::new(|_, asked| {
        let sum = sum_of(b"other").sha256;
        let body = body();
        Said::new(
            200,
            &[],
            if asked.target.ends_with(".sha256") {
                sum.as_bytes()
            } else {
                &body
            },
        )
    })
    .await;
    let desk = Desk::new(unpinned(&wrong.url("thing.yaml")));
    let sentence = desk.sentence().await;
    assert!(sentence.contains(&sum_of(b"other").sha256), "{sentence}");
    assert!(sentence.contains(&sum_of(&body()).sha256), "{sentence}");
    assert!(desk.names().is_empty(), "{:?}", desk.names());
}

fn by_proxy(name: &str, address: std::net::SocketAddr, more: &[(&str, &str)]) -> Way {
    let proxy = format!("http://{address}");
    let vars = [(name, proxy.as_str())];
    let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
    Way::from_vars(vars.iter().chain(more).map(owned))
}

#[tokio::test]
async fn plain_http_goes_through_the_proxy() {
    let proxy = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let mut desk = Desk::new(pinned("http://upstream.invalid/thing.yaml", &body()));
    desk.assets.way = by_proxy("http_proxy", proxy.address, &[]);
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(
        proxy.asked()[0].target,
        "http://upstream.invalid/thing.yaml"
    );
}

#[tokio::test]
async fn tls_goes_through_the_proxy_unread() {
    let authority = Authority::new(&["upstream.invalid"]);
    let server = Server::with_tls(authority.acceptor(), |_, asked| {
        Said::file(asked, TAG, &body())
    })
    .await;
    let proxy = Tunnel::to(server.address).await;
    let mut desk = Desk::new(pinned("https://upstream.invalid/thing.yaml", &body()));
    desk.assets.way = by_proxy("HTTPS_PROXY", proxy.address, &[]);
    desk.assets.way.authorities = vec![authority.pem.clone().into_bytes()];
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(proxy.asked(), ["CONNECT upstream.invalid:443"]);
}

#[tokio::test]
async fn what_needs_no_proxy_goes_without() {
    let proxy = Server::new(|_, _| Said::new(502, &[], b"")).await;
    let server = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    // Loopback never; others by name.
    let mut desk = Desk::of(&server, &body());
    desk.assets.way = by_proxy("ALL_PROXY", proxy.address, &[]);
    assert_eq!(read(&desk.get().await.unwrap()), body());
    let mut desk = Desk::new(pinned("http://upstream.invalid/thing.yaml", &body()));
    desk.assets.way = by_proxy("ALL_PROXY", proxy.address, &[("NO_PROXY", ".invalid")]);
    let sentence = desk.sentence().await;
    assert!(
        sentence.contains("http://upstream.invalid/thing.yaml cannot"),
        "{sentence}"
    );
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn a_private_authority_is_believed_by_whoever_is_told() {
    let authority = Authority::new(&["localhost"]);
    let server = Server::with_tls(authority.acceptor(), |_, asked| {
        Said::file(asked, TAG, &body())
    })
    .await;
    let url = format!("https://localhost:{}/thing.yaml", server.address.port());
    let mut desk = Desk::new(pinned(&url, &body()));
    let sentence = desk.sentence().await;
    assert!(sentence.contains("UnknownIssuer"), "{sentence}");
    assert!(
        sentence.ends_with("name its certificate (PEM) by SSL_CERT_FILE"),
        "{sentence}"
    );
    assert!(server.asked().is_empty());
    desk.assets.way.authorities = vec![authority.pem.into_bytes()];
    assert_eq!(read(&desk.get().await.unwrap()), body());
}

#[tokio::test]
async fn tls_is_not_left_by_a_redirect() {
    let plain = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let there = plain.url("thing.yaml");
    let authority = Authority::new(&["localhost"]);
    let server = Server::with_tls(authority.acceptor(), move |_, _| Said::redirect(&there)).await;
    let url = format!("https://localhost:{}/thing.yaml", server.address.port());
    let mut desk = Desk::new(pinned(&url, &body()));
    desk.assets.way.authorities = vec![authority.pem.into_bytes()];
    let sentence = desk.sentence().await;
    assert!(
        sentence.contains("it redirects from https to http://127.0.0.1"),
        "{sentence}"
    );
    assert!(plain.asked().is_empty());
}
