//! exec, attach and log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::channel::spdy::tests::{EXEC, octets};

const ALL: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
const ENDED: &str = "command terminated with non-zero exit code: exit status 7";

#[tokio::test]
async fn what_kubectl_1_20_sent_is_answered_to_the_end() {
    let server = server().await;
    let path = "exec?command=cat&container=c&stdin=true&stdout=true&stderr=true";
    let (mut stream, chosen) = spdy(&server, path, &ALL[1..]).await;
    assert_eq!(chosen, "v4.channel.k8s.io");
    // Without its farewell, which was the answer to another server's.
    stream.write_all(&octets(EXEC)[..164]).await.unwrap();
    let mut client = client(stream);
    let [error, stdout, stderr] = client.hear([1, 5, 7]).await;
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!((stdout.as_str(), stderr.as_str()), ("hello\n", "oops"));
    assert_eq!(error["details"]["causes"][0]["message"], "7");
    assert_eq!(error["message"], ENDED);
    client.ended().await;
}

#[tokio::test]
async fn every_version_of_a_client_is_spoken_to_in_its_own() {
    let server = server().await;
    for (versions, expected) in [
        (&ALL[..], 1),
        (&ALL[2..], 2),
        (&ALL[3..], 3),
        (&ALL[4..], 4),
    ] {
        let path = "exec?command=cat&stdin=true&stdout=true&tty=true";
        let (stream, chosen) = spdy(&server, path, versions).await;
        assert_eq!(chosen, ALL[expected]);
        let mut client = client(stream);
        client.open(1, &[("streamtype", "error")]).await;
        client.open(3, &[("streamtype", "stdin")]).await;
        client.open(5, &[("streamtype", "stdout")]).await;
        // From the third version on, there are sizes.
        let sizes = expected <= 2;
        if sizes {
            client.open(7, &[("streamtype", "resize")]).await;
            client.say(7, "{\"Width\":80,\"Height\":24}\n").await;
        } else {
            client.say(3, "hello").await;
        }
        let [error, stdout] = client.hear([1, 5]).await;
        assert_eq!(stdout, if sizes { "80x24" } else { "hello" });
        if expected == 1 {
            assert!(error.starts_with('{') && error.contains(ENDED), "{error}");
        } else {
            assert_eq!(error, ENDED);
        }
    }
}

#[tokio::test]
async fn requests_that_ask_for_no_stream_are_refused_in_words() {
    let server = server().await;
    let exec = "GET /api/v1/namespaces/default/pods/p/exec?command=cat";
    let upgrade = ["Connection: Upgrade", "Upgrade: SPDY/3.1"];
    let unknown = [
        upgrade[0],
        upgrade[1],
        "X-Stream-Protocol-Version: v9.channel.k8s.io",
    ];
    for (request, headers, code, expected) in [
        (
            format!("{exec}&stdout=true"),
            &[][..],
            400,
            "Upgrade request required",
        ),
        (
            exec.to_owned(),
            &upgrade[..],
            400,
            "you must specify at least 1 of stdin, stdout, stderr",
        ),
        (
            format!("{exec}&stdout=true"),
            &upgrade[..],
            400,
            "unable to upgrade: X-Stream-Protocol-Version is required",
        ),
        (
            format!("{exec}&stdout=true"),
            &unknown[..],
            403,
            "client supports [v9.channel.k8s.io], server accepts [v4.channel.k8s.io",
        ),
    ] {
        let mut stream = connection(&server);
        let mut headers = headers.to_vec();
        headers.push("Connection: close");
        let head = ask(&mut stream, &request, &headers).await;
        assert!(head.starts_with(&format!("http/1.1 {code}")), "{head}");
        let mut body = String::new();
        stream.read_to_string(&mut body).await.unwrap();
        assert!(body.contains(expected), "{body}");
    }
}

#[tokio::test]
async fn attach_over_a_websocket_is_the_same_session() {
    let server = server().await;
    let size = STANDARD.encode("{\"Width\":80,\"Height\":24}");
    let binary = |message: &'static [u8]| Message::Binary(Bytes::from_static(message));
    for (protocol, query, messages, expected) in [
        (
            "v5.channel.k8s.io",
            "",
            vec![binary(b"\0hello"), binary(&[255, 0])],
            "hello",
        ),
        (
            "v4.base64.channel.k8s.io",
            "&tty=true",
            vec![Message::Text(format!("4{size}").into())],
            "80x24",
        ),
    ] {
        let path = format!("attach?stdin=true&stdout=true{query}");
        let mut socket = websocket(&server, &path, protocol).await;
        for message in messages {
            socket.send(message).await.unwrap();
        }
        let (mut said, mut code) = ([const { Vec::new() }; 5], None);
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(data) => said[usize::from(data[0])].extend_from_slice(&data[1..]),
                Message::Text(text) => {
                    let (number, data) = text.split_at(1);
                    let data = STANDARD.decode(data).unwrap();
                    said[number.parse::<usize>().unwrap()].extend(data);
                }
                Message::Close(frame) => code = frame.map(|frame| u16::from(frame.code)),
                _ => {}
            }
        }
        assert_eq!(String::from_utf8_lossy(&said[1]), expected);
        assert!(String::from_utf8_lossy(&said[3]).contains(ENDED));
        assert_eq!(code, Some(1000));
    }
}

#[tokio::test]
async fn logs_end_at_the_limit_though_the_container_goes_on() {
    let server = server().await;
    let log = "/api/v1/namespaces/default/pods/p/log?follow=true&limitBytes";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
    assert_eq!(
        fetch(&server, "GET", &format!("{log}=3")).await,
        (200, chunk("fal"))
    );
    let since = format!("{log}=5&sinceSeconds=5");
    assert_eq!(fetch(&server, "GET", &since).await, (200, chunk("true\n")));
    for (query, code) in [
        ("sinceSeconds=0", 422),
        ("sinceTime=yesterday", 400),
        ("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z", 422),
    ] {
        let (found, said) = fetch(&server, "GET", &format!("{log}=5&{query}")).await;
        assert_eq!(found, code, "{said}");
    }
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_though_what_it_sent_is_not_read() {
    let kubelet = Echo::default();
    let ended = kubelet.ended.clone();
    let server = server_with(kubelet).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut ours, theirs) = (ours.unwrap(), theirs.unwrap().0);
    let peer = serve::Peer::of(&theirs).unwrap();
    let user = Some(User::component("test"));
    tokio::spawn(serve::http(server.router.clone(), user, theirs, peer));
    let headers = [
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        "X-Stream-Protocol-Version: v4.channel.k8s.io",
    ];
    let path = "/api/v1/namespaces/default/pods/p/exec?command=deaf&stdin=true&stdout=true";
    let head = ask(&mut ours, &format!("POST {path}"), &headers).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    let mut client = Client::new(tokio::io::empty(), ours);
    client
        .begin(&[(1, "error"), (3, "stdin"), (5, "stdout")])
        .await;
    // More than is kept for who does not read.
    client.say(3, &"x".repeat(1 << 20)).await;
    drop(client);
    ended.cancelled().await;
}
