//! portforward.

use tokio_tungstenite::tungstenite::Message;

use super::*;

/// Opens a pair of streams, the one for data second.
async fn pair<R, W>(client: &mut Client<R, W>, first: u32, port: u16, request: &str)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let port = port.to_string();
    for (stream, kind) in [(first, "error"), (first + 2, "data")] {
        let mut labels = vec![("streamtype", kind), ("port", port.as_str())];
        if !request.is_empty() {
            labels.push(("requestid", request));
        }
        client.open(stream, &labels).await;
    }
}

#[tokio::test]
async fn ports_are_forwarded_side_by_side() {
    let server = server().await;
    let (stream, chosen) = spdy(&server, "portforward", &["portforward.k8s.io"]).await;
    assert_eq!(chosen, "portforward.k8s.io");
    let mut client = client(stream);
    let (port, silent) = (listener().await, silent().await);
    pair(&mut client, 1, port, "0").await;
    pair(&mut client, 5, port, "1").await;
    // Of a client that does not say which belong together.
    pair(&mut client, 9, port, "").await;
    client.say(11, "third").await;
    client.say(7, "second").await;
    client.say(3, "first").await;
    let said = client.hear([1, 3, 5, 7, 9, 11]).await;
    assert_eq!(said, ["", "first", "", "second", "", "third"]);

    pair(&mut client, 13, silent, "3").await;
    let [error, data] = client.hear([13, 15]).await;
    let expected = format!("error forwarding port {silent} to pod ");
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.ends_with("uid : connection refused"), "{error}");
    assert_eq!(data, "");

    // One that is taken back has an end, though its server has more to hear.
    pair(&mut client, 17, port, "4").await;
    client.reset(19).await;
    assert_eq!(client.hear([17, 19]).await, ["", ""]);
}

#[tokio::test]
async fn ports_are_forwarded_by_spdy_inside_a_websocket() {
    let server = server().await;
    let socket = websocket(&server, "portforward", "SPDY/3.1+portforward.k8s.io").await;
    let (mut sink, mut source) = socket.split();
    let (ours, inner) = tokio::io::duplex(64 << 10);
    let (mut from, mut to) = tokio::io::split(inner);
    tokio::spawn(async move {
        while let Some(Ok(Message::Binary(data))) = source.next().await {
            to.write_all(&data).await.unwrap();
        }
    });
    tokio::spawn(async move {
        let mut piece = [0; 100];
        while let Ok(read @ 1..) = from.read(&mut piece).await {
            let message = Message::Binary(Bytes::copy_from_slice(&piece[..read]));
            sink.send(message).await.unwrap();
        }
    });
    let mut client = client(ours);
    pair(&mut client, 1, listener().await, "0").await;
    client.say(3, &"x".repeat(100_000)).await;
    let [error, data] = client.hear([1, 3]).await;
    assert_eq!((error.as_str(), data.len()), ("", 100_000));
}

#[tokio::test]
async fn ports_of_the_request_are_forwarded_by_number() {
    let server = server().await;
    let (port, silent) = (listener().await, silent().await);
    let path = format!("portforward?ports={port},{silent}");
    let mut socket = websocket(&server, &path, "v4.channel.k8s.io").await;
    socket
        .send(Message::Binary(Bytes::from_static(b"\0hello")))
        .await
        .unwrap();
    let mut said = [const { Vec::new() }; 4];
    while said[0].len() < 7 || said[3].len() < 20 {
        let Message::Binary(data) = socket.next().await.unwrap().unwrap() else {
            panic!("no data")
        };
        said[usize::from(data[0])].extend_from_slice(&data[1..]);
    }
    let prefix = |port: u16| port.to_le_bytes().to_vec();
    assert_eq!(said[0], [prefix(port), b"hello".to_vec()].concat());
    assert_eq!(said[1], prefix(port));
    assert_eq!(said[2], prefix(silent));
    let error = String::from_utf8_lossy(&said[3][2..]).into_owned();
    assert!(error.ends_with("connection refused"), "{error}");
}
