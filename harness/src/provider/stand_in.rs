//! What stands in for a cluster in tests of providers whose programs are stand-ins.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use crate::settings::Settings;

/// A server on a port of this machine that answers each path so, until the process ends.
pub(super) fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = request.split_whitespace().nth(1).unwrap_or_default();
            let _ = stream.write_all(answer(path).as_bytes());
        }
    });
    port
}

/// An API server of Kubernetes 1.34 that has no groups, of each path the items that are given for it, and
/// nothing of any other.
pub(super) fn api_server(items: impl Fn(&str) -> Option<String> + Send + 'static) -> u16 {
    serve(move |path| {
        let body = match path.split('?').next().unwrap_or_default() {
            "/version" => {
                r#"{"major":"1","minor":"34","gitVersion":"v1.34.0","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#
                    .to_owned()
            }
            "/apis" => r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#.to_owned(),
            path => format!(
                r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"1"}},"items":[{}]}}"#,
                items(path).unwrap_or_default()
            ),
        };
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    })
}

/// A kubeconfig of an API server at a port of this machine.
pub(super) fn kubeconfig(port: u16) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}], users: [{{name: u, user: {{}}}}], contexts: [{{name: c, context: {{cluster: c, user: u}}}}]}}"
    )
}

/// Writes a stand-in for a program; each of `names` in its text is the path of that file beside it.
pub(super) fn program(dir: &Path, name: &str, text: &str, names: &[&str]) {
    let text = names.iter().fold(text.to_owned(), |text, name| {
        text.replace(name, dir.join(name).to_str().unwrap())
    });
    crate::script::write(&dir.join(name), &text);
}

/// Settings by these variables alone.
pub(super) fn settings(vars: &[(&str, &str)]) -> Settings {
    let vars = vars
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    Settings::from_vars(vars).unwrap()
}
