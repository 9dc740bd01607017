//! proxy.

use axum::routing::get;
use tokio_tungstenite::tungstenite::Message;

use super::*;

#[tokio::test]
async fn requests_are_proxied_to_a_pod() {
    let server = server().await;
    let router = axum::Router::new()
        .route(
            "/moved",
            get(async || axum::response::Redirect::to("/here")),
        )
        .fallback(async |request: axum::extract::Request| {
            let headers = request.headers();
            let forwarded = headers["x-forwarded-uri"].to_str().unwrap().to_owned();
            let secret = headers.contains_key("authorization");
            format!(
                "{} {} {forwarded} {secret}",
                request.method(),
                request.uri()
            )
        });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let pod = format!("/api/v1/namespaces/default/pods/p:{port}/proxy");
    let (code, body) = fetch(&server, "DELETE", &format!("{pod}/a%2Fb/?c=d")).await;
    assert_eq!(code, 200, "{body}");
    let expected = format!("DELETE /a%2Fb/?c=d {pod}/a%2Fb/ false");
    assert!(body.contains(&expected), "{body}");
    let (code, head) = fetch(&server, "GET", &format!("{pod}?c=d")).await;
    assert_eq!(code, 301, "{head}");
    assert!(head.contains(&format!("location: {pod}/?c=d")), "{head}");
    let (code, head) = fetch(&server, "GET", &format!("{pod}/moved")).await;
    assert_eq!(code, 303, "{head}");
    assert!(head.contains(&format!("location: {pod}/here")), "{head}");

    let silent = silent().await;
    let path = format!("/api/v1/namespaces/default/pods/p:{silent}/proxy/");
    let (code, body) = fetch(&server, "GET", &path).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, silent));
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (code, &status["reason"]),
        (503, &json!("ServiceUnavailable"))
    );
    let expected =
        format!("error trying to reach service: dial tcp {address}: connect: connection refused");
    assert_eq!(status["message"], expected);
    let (code, _) = fetch(
        &server,
        "GET",
        "/api/v1/namespaces/default/configmaps/p/proxy/",
    )
    .await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn websockets_are_proxied_too() {
    use axum::extract::ws::WebSocketUpgrade;
    let server = server().await;
    let router = axum::Router::new().route(
        "/echo",
        get(async |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async |mut socket| {
                while let Some(Ok(message)) = socket.next().await {
                    let _ = socket.send(message).await;
                }
            })
        }),
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let url = format!("ws://lab/api/v1/namespaces/default/pods/p:{port}/proxy/echo");
    let request = url.into_client_request().unwrap();
    let opened = tokio_tungstenite::client_async(request, connection(&server)).await;
    let mut socket = opened.unwrap().0;
    socket.send(Message::Text("hello".into())).await.unwrap();
    let said = socket.next().await.unwrap().unwrap();
    assert_eq!(said, Message::Text("hello".into()));
}
