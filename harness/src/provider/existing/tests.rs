//! The provider against a stand-in for an API server, which notes what is asked of it. (Real ones:
//! `scripts/prove-existing`.)

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex as StdMutex;

use kube::config::Kubeconfig;
use serde_json::{Value, json};

use super::*;
use crate::apply::{Variant, load_planned};
use crate::settings::workspace;
use crate::stack::Layer;

/// What was asked of it: `GET /version`, and the body.
type Asked = Arc<StdMutex<Vec<(String, Value)>>>;

/// An API server with nothing in it, on which somebody may do only what `may` says.
fn api_server(may: fn(&Value) -> bool) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some((line, body)) = read(&stream) else {
                continue;
            };
            let (status, answer) = answer(&line, &body, may);
            noted.lock().unwrap().push((line, body));
            let answer = answer.to_string();
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            );
        }
    });
    (port, asked)
}

fn read(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let words: Vec<_> = line.split_whitespace().take(2).collect();
    Some((
        words.join(" "),
        serde_json::from_slice(&body).unwrap_or(Value::Null),
    ))
}

fn answer(line: &str, body: &Value, may: fn(&Value) -> bool) -> (u16, Value) {
    let path = line.split(' ').nth(1).unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "/version" => (
            200,
            json!({"major": "1", "minor": "34", "gitVersion": "v1.34.1", "gitCommit": "",
                "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        ),
        "/apis" => (
            200,
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]},
            ]}),
        ),
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
            let mut review = body.clone();
            let allowed = may(&body["spec"]["resourceAttributes"]);
            review["status"] = json!({ "allowed": allowed });
            (201, review)
        }
        "/api/v1/nodes"
        | "/api/v1/services"
        | "/api/v1/namespaces"
        | "/apis/apps/v1/deployments" => (
            200,
            json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}),
        ),
        _ => (
            404,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                "message": format!("there is no {path}"), "reason": "NotFound"}),
        ),
    }
}

fn existing(port: u16, vars: &[(&str, &str)]) -> Result<Existing, BadInput> {
    let context = [("STRATA_CONTEXT", "it")];
    let vars = context.iter().chain(vars);
    let vars = vars.map(|(name, value)| ((*name).into(), (*value).into()));
    let settings = Settings::from_vars(vars)?;
    let kubeconfig = format!(
        "{{clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}], \
          contexts: [{{name: it, context: {{cluster: c}}}}]}}"
    );
    let registry = Target::of(&settings)?;
    Ok(Existing {
        chosen: Chosen::by(&settings, || Kubeconfig::from_yaml(&kubeconfig))?,
        choice: choice(&settings)?,
        probe: probe(&settings, registry.as_ref())?,
        registry,
        state: None,
        looked: Mutex::default(),
        made: Mutex::default(),
    })
}

/// What a preflight says, line by line, and what it comes to.
async fn preflight(existing: &Existing) -> (Vec<String>, Result<(), String>) {
    let root = workspace().join("manifests");
    let run = RunInfo {
        id: "abc123".to_owned(),
        manifests: Arc::new(
            load_planned(&root, |_| Variant::of("existing"), [Layer::Cni], []).unwrap(),
        ),
        ..RunInfo::default()
    };
    let planned = Planned {
        run: &run,
        checks: BTreeMap::new(),
    };
    let said = StdMutex::default();
    let tell = |line: &str| {
        let mut said: std::sync::MutexGuard<'_, Vec<String>> = said.lock().unwrap();
        said.push(line.to_owned());
    };
    let came_to = existing.preflight(&planned, &tell).await;
    (said.into_inner().unwrap(), came_to.map_err(|bad| bad.0))
}

/// What was asked that may change something.
fn changes(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().unwrap();
    let lines = asked.iter().map(|(line, _)| line.clone());
    let reads =
        |line: &String| line.starts_with("GET ") || line.contains("/selfsubjectaccessreviews");
    lines.filter(|line| !reads(line)).collect()
}

#[tokio::test]
async fn without_permission_it_tells_what_it_would_make_and_makes_nothing() {
    let (port, asked) = api_server(|_| true);
    let (lines, came_to) = preflight(&existing(port, &[]).unwrap()).await;
    assert!(
        lines[0].starts_with("context it is http://127.0.0.1"),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("strata-abc123 and strata-cni-abc123"),
        "{lines:?}"
    );
    assert_eq!(
        came_to.unwrap_err(),
        "nothing was made in context it: STRATA_ALLOW=it allows what is told above"
    );
    assert!(changes(&asked).is_empty(), "{:?}", changes(&asked));
}

#[tokio::test]
async fn rights_that_are_missing_are_named_before_anything_is_made() {
    let (port, asked) = api_server(|wanted| {
        let refused = wanted["resource"] == "namespaces" && wanted["verb"] != "get"
            || wanted["subresource"] == "exec"
            || wanted["resource"] == "*";
        !refused
    });
    let allowed = existing(port, &[("STRATA_ALLOW", "it")]).unwrap();
    let (_, came_to) = preflight(&allowed).await;
    let said = came_to.unwrap_err();
    assert!(
        said.contains(
            "its user may not create, delete, list, patch, watch namespaces; create, get pods/exec;"
        ),
        "{said}"
    );
    assert!(said.contains("manifests/existing/role.yaml"), "{said}");
    assert!(changes(&asked).is_empty());
}

#[tokio::test]
async fn who_may_do_everything_is_asked_once() {
    let (port, asked) = api_server(|_| true);
    let allowed = existing(port, &[("STRATA_ALLOW", "it")]).unwrap();
    let (_, came_to) = preflight(&allowed).await;
    came_to.unwrap();
    let asked = asked.lock().unwrap();
    let reviews = asked
        .iter()
        .filter(|(line, _)| line.contains("selfsubject"));
    assert_eq!(reviews.count(), 1);
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_no_bad_input_but_not_up() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (lines, came_to) = preflight(&existing(nobody.port(), &[]).unwrap()).await;
    assert!(lines.is_empty(), "{lines:?}");
    let said = came_to.unwrap_err();
    assert!(
        said.contains("could not be looked at") && said.contains("STRATA_ALLOW=it"),
        "{said}"
    );
    let allowed = existing(nobody.port(), &[("STRATA_ALLOW", "it")]).unwrap();
    let (_, came_to) = preflight(&allowed).await;
    came_to.unwrap();
    assert!(allowed.create(&RunInfo::default(), &|_| {}).await.is_err());
    assert!(allowed.destroy().await.is_empty());
}

#[test]
fn what_cannot_be_had_is_refused() {
    let said = |vars: &[(&str, &str)]| existing(1, vars).err().unwrap().0;
    assert!(
        said(&[("STRATA_OUTSIDE", "moon")])
            .contains("choose local, which is this machine, or none")
    );
    assert!(
        said(&[("STRATA_PROBE_PULL", "often")])
            .contains("choose one of IfNotPresent, Always, Never")
    );
    let settings = [("STRATA_CNI".into(), "calico".into())];
    let said = Existing::new(&Settings::from_vars(settings).unwrap());
    assert!(
        said.err()
            .unwrap()
            .0
            .contains("an existing cluster has already")
    );
}

#[tokio::test]
async fn an_image_that_the_run_pushes_is_named_by_its_digest_before_it_is_pushed() {
    let (port, asked) = api_server(|_| true);
    let registry = ("STRATA_REGISTRY", "localhost:5000/team");
    let (lines, _) = preflight(&existing(port, &[registry]).unwrap()).await;
    let told = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(
        told("the probe's image is localhost:5000/team/strata-probe@sha256:"),
        "{lines:?}"
    );
    assert!(
        told("would push that image to localhost:5000/team"),
        "{lines:?}"
    );
    assert!(changes(&asked).is_empty(), "{:?}", changes(&asked));
    let both = [registry, ("STRATA_PROBE_IMAGE", "elsewhere/probe:v1")];
    let error = existing(port, &both).err().unwrap();
    assert!(error.0.contains("set one of them"), "{}", error.0);
}
