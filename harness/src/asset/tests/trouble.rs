//! Servers that redirect, refuse and lie.

use super::*;

/// Another file of the same length.
fn other() -> Vec<u8> {
    body().iter().map(|byte| byte ^ 0xff).collect()
}

#[tokio::test]
async fn a_redirect_is_followed_to_another_host() {
    let other = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let there = format!("http://localhost:{}/elsewhere", other.address.port());
    let server = Server::new(move |_, _| Said::redirect(&there)).await;
    let desk = Desk::of(&server, &body());
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(other.asked()[0].target, "/elsewhere");
}

#[tokio::test]
async fn redirects_in_circles_and_without_end_are_not_followed() {
    let server = Server::new(|count, _| {
        Said::redirect(if count % 2 == 0 {
            "/b.yaml"
        } else {
            "/thing.yaml"
        })
    })
    .await;
    let desk = Desk::of(&server, &body());
    let sentence = desk.sentence().await;
    assert!(
        sentence.contains("it redirects in a circle, by http://127.0.0.1"),
        "{sentence}"
    );
    assert_eq!(server.asked().len(), 2);

    let server = Server::new(|count, _| Said::redirect(&format!("/{count}"))).await;
    let sentence = Desk::of(&server, &body()).sentence().await;
    assert!(
        sentence.contains("it redirects more than 10 times"),
        "{sentence}"
    );
    assert_eq!(server.asked().len(), 11);
}

#[tokio::test]
async fn another_file_is_refused_with_both_sums() {
    let server = Server::new(|_, asked| Said::file(asked, TAG, &other())).await;
    let desk = Desk::of(&server, &body());
    let sentence = desk.sentence().await;
    let (found, expected) = (sum_of(&other()), sum_of(&body()));
    assert_eq!(
        sentence,
        format!(
            "thing v1 is not what it should be: {} has {found}, and manifests/assets.yaml says \
             {expected}; nothing of it was used",
            server.url("thing.yaml")
        )
    );
    assert_eq!(server.asked().len(), 1);
    assert!(desk.names().is_empty(), "{:?}", desk.names());
}

#[tokio::test]
async fn a_shorter_file_is_refused_with_both_sums() {
    let server = Server::new(|_, asked| Said::file(asked, TAG, b"Not here.")).await;
    let sentence = Desk::of(&server, &body()).sentence().await;
    assert!(sentence.contains("(9 bytes)"), "{sentence}");
    assert!(sentence.contains("(400000 bytes)"), "{sentence}");
}

#[tokio::test]
async fn lies_about_the_length_are_found_by_counting() {
    // Less is said than comes: what is read is too short, and another file.
    let less = Server::new(|_, _| Said::new(200, &[("content-length", "1000")], &body())).await;
    let sentence = Desk::of(&less, &body()).sentence().await;
    assert!(sentence.contains("(1000 bytes)"), "{sentence}");

    // More is said than there should be.
    let more = Server::new(|_, _| Said::new(200, &[("content-length", "400001")], &body())).await;
    let desk = Desk::of(&more, &body());
    let sentence = desk.sentence().await;
    assert!(
        sentence.contains("is 400001 bytes long, and its pin says 400000 bytes"),
        "{sentence}"
    );
    assert!(desk.names().is_empty());

    // Nothing is said, and more comes than there should be: it is not taken in for ever.
    let endless = Server::new(|_, _| {
        let twice = [body(), body()].concat();
        Said::new(200, &[("without-length", "1")], &twice).and_hang()
    })
    .await;
    let desk = Desk::of(&endless, &body());
    let sentence = desk.sentence().await;
    assert!(
        sentence.contains("is longer, and its pin says 400000 bytes"),
        "{sentence}"
    );
    assert!(desk.names().is_empty());
}

/// A desk where half of the file is there already, of the state that has this tag.
fn half(server: &Server, tag: &str) -> Desk {
    let desk = Desk::of(server, &body());
    std::fs::create_dir_all(desk.place("")).unwrap();
    std::fs::write(desk.place("thing.yaml.partial"), &body()[..HALF]).unwrap();
    std::fs::write(desk.place("thing.yaml.partial.etag"), tag).unwrap();
    desk
}

#[tokio::test]
async fn a_server_without_ranges_is_asked_for_all_of_it() {
    let server = Server::new(|_, _| Said::new(200, &[], &body())).await;
    let desk = half(&server, TAG);
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(ranges(&server), [Some(HALF)]);
}

#[tokio::test]
async fn who_cuts_it_each_time_and_always_begins_anew_is_given_up() {
    let server = Server::new(|_, _| Said::new(200, &[], &body()).cut(1000)).await;
    let desk = Desk::of(&server, &body());
    let sentence = desk.sentence().await;
    assert!(sentence.contains("in 3 tries that brought"), "{sentence}");
    // Two of them brought something: the first, and the one that began anew.
    assert_eq!(server.asked().len(), 5);
    // Nor is one that calls it another file each time.
    let server =
        Server::new(|count, asked| Said::file(asked, &format!("\"{count}\""), &body()).cut(1000))
            .await;
    let sentence = Desk::of(&server, &body()).sentence().await;
    assert!(sentence.contains("in 3 tries that brought"), "{sentence}");
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_fetched_from_its_beginning() {
    let server = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let desk = half(&server, "\"older\"");
    std::fs::write(desk.place("thing.yaml.partial"), &other()[..HALF]).unwrap();
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(ranges(&server), [Some(HALF)]);
}

#[tokio::test]
async fn pieces_that_do_not_fit_are_thrown_away_once() {
    // It does not look at If-Range, and does not say what it gives a part of.
    let careless = |asked: &Asked| match asked.from() {
        Some(first) => {
            let range = format!("bytes {first}-399999/400000");
            Said::new(206, &[("content-range", &range)], &body()[first..])
        }
        None => Said::new(200, &[], &body()),
    };
    let server = Server::new(move |_, asked| careless(asked)).await;
    let desk = half(&server, TAG);
    std::fs::write(desk.place("thing.yaml.partial"), &other()[..HALF]).unwrap();
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(ranges(&server), [Some(HALF), None]);
    assert_eq!(desk.names(), ["thing/v1/thing.yaml"]);
}

#[tokio::test]
async fn another_part_than_the_one_asked_for_is_not_taken() {
    type Part = fn(usize) -> Said;
    let parts: [Part; 4] = [
        |first| Said::part(first - 1, 400_000, TAG, &body()[first - 1..]),
        |first| Said::part(first, 400_001, TAG, &body()[first..]),
        |first| Said::part(first, 400_000, "\"two\"", &body()[first..]),
        |first| Said::new(206, &[("content-range", "nonsense")], &body()[first..]),
    ];
    for part in parts {
        let server = Server::new(move |_, asked| match asked.from() {
            Some(first) => part(first),
            None => Said::file(asked, TAG, &body()),
        })
        .await;
        let desk = half(&server, TAG);
        assert_eq!(read(&desk.get().await.unwrap()), body());
        assert_eq!(ranges(&server), [Some(HALF), None]);
    }
    // Who gives parts that nobody asked for never gives a whole.
    let server = Server::new(|_, _| Said::part(5, 400_000, TAG, &body()[5..])).await;
    let sentence = Desk::of(&server, &body()).sentence().await;
    assert!(
        sentence.contains("answers with other bytes (bytes 5-399999/400000)"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_part_that_the_server_cannot_go_on_from_is_thrown_away() {
    let server = Server::new(|_, asked| match asked.from() {
        Some(_) => Said::new(416, &[("content-range", "bytes */1000")], b""),
        None => Said::file(asked, TAG, &body()),
    })
    .await;
    let desk = half(&server, TAG);
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert_eq!(ranges(&server), [Some(HALF), None]);
    // Who answers so to a request for the whole has nothing.
    let server = Server::new(|_, _| Said::new(416, &[], b"")).await;
    let sentence = Desk::of(&server, &body()).sentence().await;
    assert!(sentence.contains("answers 416"), "{sentence}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_part_that_is_all_of_it_is_not_asked_for() {
    let server = Server::new(|_, asked| Said::file(asked, TAG, &body())).await;
    let desk = half(&server, TAG);
    std::fs::write(desk.place("thing.yaml.partial"), body()).unwrap();
    assert_eq!(read(&desk.get().await.unwrap()), body());
    assert!(server.asked().is_empty());
    // Or too much, or as much of another file.
    for wrong in [[body(), body()].concat(), other()] {
        let desk = half(&server, TAG);
        std::fs::write(desk.place("thing.yaml.partial"), wrong).unwrap();
        assert_eq!(read(&desk.get().await.unwrap()), body());
    }
    assert_eq!(ranges(&server), [None, None]);
}

#[tokio::test]
async fn a_refusal_is_final_and_an_excuse_is_not() {
    for (status, expected) in [
        (404, "is out of date"),
        (403, "credentials"),
        (400, "answers 400"),
    ] {
        let server = Server::new(move |_, _| Said::new(status, &[], b"no")).await;
        let sentence = Desk::of(&server, &body()).sentence().await;
        assert!(sentence.contains(expected), "{sentence}");
        assert_eq!(server.asked().len(), 1, "{status}");
    }
    for status in [503, 500, 429] {
        let server = Server::new(move |count, asked| match count {
            0 | 1 => Said::new(status, &[], b"later"),
            _ => Said::file(asked, TAG, &body()),
        })
        .await;
        assert_eq!(
            read(&Desk::of(&server, &body()).get().await.unwrap()),
            body()
        );
    }
    let server = Server::new(|_, _| Said::new(503, &[], b"later")).await;
    let sentence = Desk::of(&server, &body()).sentence().await;
    assert!(sentence.contains("in 3 tries"), "{sentence}");
    assert!(sentence.contains("set STRATA_ASSETS"), "{sentence}");
    assert!(
        sentence.ends_with("answers 503 Service Unavailable"),
        "{sentence}"
    );
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn nobody_there_is_said_with_what_to_do() {
    let gone = Server::new(|_, _| Said::new(200, &[], b"")).await;
    let desk = Desk::of(&gone, &body());
    let port = gone.address.port();
    drop(gone);
    // The port may be taken again by another test's server, which then does not have it either.
    let sentence = desk.sentence().await;
    assert!(
        sentence.contains(&format!("http://127.0.0.1:{port}/thing.yaml")),
        "{sentence}"
    );
    assert!(desk.names().is_empty());
}
