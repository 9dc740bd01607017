//! Metadata alone, as garbage collectors and generic informers ask for it.

use futures::{AsyncBufReadExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use strata_lab::api::ApiServer;

use crate::{from, soon};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// As client-go's metadata client asks; the first line of the answer.
async fn ask(client: &Client, query: &str) -> Value {
    let accept = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,\
                  application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
    let request = http::Request::get(format!("{PATH}{query}")).header("accept", accept);
    let answer = client.request_stream(request.body(Vec::new()).unwrap());
    let mut lines = soon("an answer", answer).await.unwrap().lines();
    let first = soon("a line", lines.next()).await.unwrap().unwrap();
    serde_json::from_str(&first).unwrap()
}

#[tokio::test]
async fn who_wants_the_metadata_alone_gets_no_more() {
    let client = ApiServer::alone().unwrap().client("test");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = from(json!({"metadata": {"name": "c"}, "data": {"a": "1"}}));
    maps.create(&PostParams::default(), &map).await.unwrap();
    let is_partial = |object: &Value| {
        object["kind"] == "PartialObjectMetadata"
            && object["apiVersion"] == "meta.k8s.io/v1"
            && object["metadata"]["name"] == "c"
            && object.get("data").is_none()
    };
    let one = ask(&client, "/c").await;
    assert!(is_partial(&one), "{one}");
    let list = ask(&client, "").await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(is_partial(&list["items"][0]), "{list}");
    let event = ask(&client, "?watch=true").await;
    assert!(is_partial(&event["object"]), "{event}");
    let partial: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(client);
    let listed = partial.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items[0].name_any(), "c");
}
