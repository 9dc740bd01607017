//! The whole controller against an API server in this process: its definitions, what it makes, and
//! what it says while things come up one after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::runtime::wait::{Condition as _, await_condition};

use super::*;
use crate::api::ApiServer;
use crate::l7::gateway::observe::Ask;

/// Longer than anything here takes: a test that waits for what never comes must end, too.
const PATIENCE: Duration = Duration::from_secs(30);

/// An API server that serves the Gateway API, and a client of it.
async fn cluster() -> (ApiServer, Client) {
    let server = ApiServer::alone().unwrap();
    let client = server.client("test");
    let manifest = include_str!("../../../../../../manifests/gateway/lab-crds.yaml");
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for document in documents(manifest) {
        let definition = crate::testing::object(document);
        api.create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
    (server, client)
}

/// Creates the objects of a YAML text in namespace `default`, in the form that they are written in.
async fn create(client: &Client, yaml: &str) -> Result<(), kube::Error> {
    for document in documents(yaml) {
        let text = document.to_string();
        let kind = document["kind"].as_str().unwrap();
        let path = match kind {
            "GatewayClass" => "/apis/gateway.networking.k8s.io/v1/gatewayclasses".to_owned(),
            "Service" => "/api/v1/namespaces/default/services".to_owned(),
            "ServiceAccount" => "/api/v1/namespaces/default/serviceaccounts".to_owned(),
            "EndpointSlice" => {
                "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices".to_owned()
            }
            kind => {
                let plural = format!("{}s", kind.to_lowercase());
                format!("/apis/gateway.networking.k8s.io/v1/namespaces/default/{plural}")
            }
        };
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(text.into_bytes()).unwrap();
        client.request::<Value>(request).await?;
    }
    Ok(())
}

/// The GatewayClass of the manifest that installs the controller.
fn class() -> String {
    let manifest = include_str!("../../../../../../manifests/gateway/lab.yaml");
    let class = documents(manifest)
        .into_iter()
        .find(|document| document["kind"] == "GatewayClass")
        .unwrap();
    format!("{class}\n---\n")
}

/// Waits until an object is as wanted.
async fn until<K>(api: &Api<K>, name: &str, holds: impl Fn(&K) -> bool) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let condition = |object: Option<&K>| object.is_some_and(&holds);
    let waiting = await_condition(api.clone(), name, condition);
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found.unwrap().unwrap(),
        Err(_) => panic!("{name} stays {:#?}", api.get_opt(name).await),
    }
}

/// `status/reason` of a condition of a Gateway.
fn says(gateway: &Gateway, kind: &str) -> String {
    let status = gateway.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or_else(String::new, |found| {
        format!("{}/{}", found.status, found.reason)
    })
}

#[tokio::test]
async fn the_definitions_give_defaults_and_refuse_what_is_not_valid() {
    let (_server, client) = cluster().await;
    create(&client, &[&class(), GATEWAY, ROUTE].concat())
        .await
        .unwrap();
    let gateways: Api<Gateway> = Api::default_namespaced(client.clone());
    let gateway = gateways.get("my-gateway").await.unwrap();
    let listener = serde_json::to_value(&gateway.spec.listeners[0]).unwrap();
    assert_eq!(
        listener["allowedRoutes"],
        json!({ "namespaces": { "from": "Same" } })
    );
    assert_eq!(says(&gateway, "Programmed"), "Unknown/Pending");
    let routes: Api<HttpRoute> = Api::default_namespaced(client.clone());
    let route = routes.get("my-route").await.unwrap();
    let spec = serde_json::to_value(&route.spec).unwrap();
    assert_eq!(spec["parentRefs"][0]["kind"], "Gateway");
    let backend =
        json!({ "group": "", "kind": "Service", "name": "frontend", "port": 80, "weight": 1 });
    assert_eq!(spec["rules"][0]["backendRefs"][0], backend);
    let bare = "kind: HTTPRoute\napiVersion: gateway.networking.k8s.io/v1\nmetadata: {name: bare}\nspec: {parentRefs: [{name: g}]}";
    create(&client, bare).await.unwrap();
    let bare = serde_json::to_value(routes.get("bare").await.unwrap().spec).unwrap();
    let everything = json!([{ "path": { "type": "PathPrefix", "value": "/" } }]);
    assert_eq!(bare["rules"], json!([{ "matches": everything }]));

    let with = |from: &str, to: &str| ROUTE.replace("my-route", "wrong").replace(from, to);
    let gateway = |from: &str, to: &str| GATEWAY.replace("my-gateway", "wrong").replace(from, to);
    for (what, yaml, field) in [
        ("path", with("/frontend", "frontend"), "path"),
        ("slashes", with("/frontend", "/front//end"), "path"),
        (
            "match type",
            with("PathPrefix", "Prefix"),
            "matches[0].path.type",
        ),
        (
            "weight",
            with("port: 80", "port: 80\n      weight: -1"),
            "backendRefs[0].weight",
        ),
        ("port", with("      port: 80\n", ""), "backendRefs[0]"),
        (
            "port number",
            with("port: 80", "port: 0"),
            "backendRefs[0].port",
        ),
        (
            "hostname",
            with("spec:", "spec:\n  hostnames: ['a_b']"),
            "hostnames[0]",
        ),
        (
            "filter without its field",
            with(
                "    backendRefs",
                "    filters: [{type: URLRewrite}]\n    backendRefs",
            ),
            "filters[0]",
        ),
        (
            "filter of other field",
            with(
                "    backendRefs",
                "    filters: [{type: URLRewrite, urlRewrite: {}, requestRedirect: {}}]\n    backendRefs",
            ),
            "filters[0]",
        ),
        (
            "status code",
            with(
                "    backendRefs",
                "    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 404}}]\n    backendRefs",
            ),
            "statusCode",
        ),
        (
            "no listeners",
            gateway(
                "  listeners:\n  - name: http\n    protocol: HTTP\n    port: 80\n",
                "  listeners: []\n",
            ),
            "listeners",
        ),
        (
            "twice",
            gateway(
                "  listeners:\n",
                "  listeners:\n  - {name: http, protocol: HTTP, port: 81}\n",
            ),
            "listeners",
        ),
        (
            "tls",
            gateway(
                "port: 80",
                "port: 80\n    tls: {certificateRefs: [{name: a}]}",
            ),
            "listeners[0]",
        ),
        (
            "class",
            gateway("  gatewayClassName: contour\n", ""),
            "gatewayClassName",
        ),
        (
            "listener port",
            gateway("port: 80", "port: 65536"),
            "listeners[0].port",
        ),
    ] {
        let refused = create(&client, &yaml).await.expect_err(what);
        let kube::Error::Api(status) = &refused else {
            panic!("{what}: {refused}")
        };
        assert_eq!(status.code, 422, "{what}: {refused}");
        assert!(status.message.contains(field), "{what}: {refused}");
    }
}

#[tokio::test]
async fn a_gateway_is_made_and_said_to_be_programmed_when_envoy_serves_it() {
    let (_server, client) = cluster().await;
    // What the Envoy of this test says that it serves.
    let serving: Arc<Mutex<BTreeMap<IpAddr, String>>> = Arc::default();
    let answers = serving.clone();
    let ask: Ask = Arc::new(move |address| {
        let answer = answers.lock().unwrap().get(&address).cloned();
        Box::pin(async move { answer })
    });
    let observer = Observer::new(ask);
    let xds = Xds::new(Arc::new(|line| eprintln!("xds: {line}")));
    let own = "gateway-system".to_owned();
    let mut controller = Controller::start(client.clone(), own, observer, xds.clone()).await;
    let story = async {
        create(&client, &[&class(), GATEWAY, ROUTE].concat())
            .await
            .unwrap();
        let classes: Api<GatewayClass> = Api::all(client.clone());
        until(&classes, "contour", |class| {
            let status = class.status.clone().unwrap_or_default();
            status
                .conditions
                .unwrap_or_default()
                .iter()
                .any(|condition| condition.status == "True")
        })
        .await;

        let gateways: Api<Gateway> = Api::default_namespaced(client.clone());
        let gateway = until(&gateways, "my-gateway", |gateway| {
            says(gateway, "Programmed") == "False/AddressNotAssigned"
        })
        .await;
        assert_eq!(says(&gateway, "Accepted"), "True/Accepted");
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        let deployment = until(&deployments, "envoy-my-gateway", |_| true).await;
        assert_eq!(deployment.owner_references()[0].uid, gateway.uid().unwrap());

        let services: Api<Service> = Api::default_namespaced(client.clone());
        until(&services, "envoy-my-gateway", |_| true).await;
        let balancer =
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "172.30.1.7" }] } } });
        let merge = PatchParams::default();
        services
            .patch_status("envoy-my-gateway", &merge, &Patch::Merge(balancer))
            .await
            .unwrap();
        until(&gateways, "my-gateway", |gateway| {
            says(gateway, "Programmed") == "False/Pending"
        })
        .await;

        let account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}";
        create(&client, account).await.unwrap();
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        let template = deployment.spec.unwrap().template;
        let mut pod: Pod = crate::testing::object(json!({
            "metadata": template.metadata, "spec": template.spec,
        }));
        pod.metadata.name = Some("envoy-my-gateway-1".to_owned());
        pods.create(&PostParams::default(), &pod).await.unwrap();
        let ready = json!({ "status": {
            "podIP": "10.244.1.9", "conditions": [{ "type": "Ready", "status": "True" }],
        } });
        pods.patch_status("envoy-my-gateway-1", &merge, &Patch::Merge(ready))
            .await
            .unwrap();
        let behind = until(&gateways, "my-gateway", |gateway| {
            let status = gateway.status.clone().unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            conditions
                .iter()
                .any(|condition| condition.message.contains("10.244.1.9"))
        })
        .await;
        assert_eq!(says(&behind, "Programmed"), "False/Pending");

        let told = version_of(&xds);
        serving
            .lock()
            .unwrap()
            .insert("10.244.1.9".parse().unwrap(), told.clone());
        let gateway = until(&gateways, "my-gateway", |gateway| {
            says(gateway, "Programmed") == "True/Programmed"
        })
        .await;
        let status = gateway.status.unwrap();
        assert_eq!(status.addresses.unwrap()[0].value, "172.30.1.7");
        assert_eq!(status.listeners.unwrap()[0].attached_routes, 1);

        let routes: Api<HttpRoute> = Api::default_namespaced(client.clone());
        let resolved = |route: &HttpRoute| -> String {
            let parents = route.status.clone().unwrap_or_default().parents;
            let conditions = parents.into_iter().flat_map(|parent| parent.conditions);
            let mut refs = conditions.filter(|condition| condition.type_ == "ResolvedRefs");
            refs.next().map(|refs| refs.reason).unwrap_or_default()
        };
        until(&routes, "my-route", |route| {
            resolved(route) == "BackendNotFound"
        })
        .await;
        create(&client, &in_v1(&service("frontend", &["10.244.1.5"])))
            .await
            .unwrap();
        until(&routes, "my-route", |route| {
            resolved(route) == "ResolvedRefs"
        })
        .await;
        let told_of_the_endpoint = async {
            loop {
                let now_told = json!(xds.published("default/envoy-my-gateway")).to_string();
                if now_told.contains("10.244.1.5") && version_of(&xds) != told {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, told_of_the_endpoint).await;
        in_time.expect("Envoy is not told of the endpoint");
        // Endpoints come and go; the Gateway stays programmed meanwhile.
        let gateway = gateways.get("my-gateway").await.unwrap();
        assert_eq!(says(&gateway, "Programmed"), "True/Programmed");

        let other = json!({ "spec": { "gatewayClassName": "somebody-elses" } });
        gateways
            .patch("my-gateway", &merge, &Patch::Merge(other))
            .await
            .unwrap();
        let gone = await_condition(deployments, "envoy-my-gateway", is_there().not());
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        gone.expect("an Envoy stays that nobody asks for").unwrap();
    };
    tokio::select! {
        () = controller.follow(|line| eprintln!("controller: {line}")) => {}
        () = story => {}
    }
}

/// Documents as an API server wants them.
fn in_v1(yaml: &str) -> String {
    yaml.replace("kind: Service\n", "apiVersion: v1\nkind: Service\n")
        .replace(
            "kind: EndpointSlice\n",
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n",
        )
}

fn is_there() -> impl kube::runtime::wait::Condition<Deployment> {
    |object: Option<&Deployment>| object.is_some()
}

/// The version that a configuration tells.
fn version_of(xds: &Xds) -> String {
    let told = xds.published("default/envoy-my-gateway").unwrap();
    let version = told
        .iter()
        .find(|resource| resource["name"] == "version" && resource.get("virtual_hosts").is_some())
        .unwrap();
    version["virtual_hosts"][0]["routes"][0]["direct_response"]["body"]["inline_string"]
        .as_str()
        .unwrap()
        .to_owned()
}
