//! What is made of a value by its type is what `k8s-openapi`'s struct makes of it.

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use schemars::JsonSchema;
use serde_json::json;

use super::*;

fn typed<T: JsonSchema>() -> Typed {
    Types::of(&[|generator| generator.subschema_for::<T>()])
        .pop()
        .unwrap()
}

fn read<T: JsonSchema>(mut value: Value) -> (Result<Value, String>, Vec<String>) {
    let mut unknown = Vec::new();
    let found = typed::<T>().read(&mut value, &mut unknown);
    (found.map(|()| value), unknown)
}

/// Some value of a type, now and then with an unknown field, a null, or a value of another type.
fn some(typed: &Typed, at: At, depth: usize, rng: &mut TestRng) -> Value {
    let one_of = |rng: &mut TestRng, choices: u32| rng.next_u32().is_multiple_of(choices);
    if one_of(rng, 500) {
        let others = [json!(1.5), json!("another"), json!({"type": true})];
        return others[rng.next_u32() as usize % 3].clone();
    }
    let few = |rng: &mut TestRng| if depth > 6 { 0 } else { rng.next_u32() % 3 };
    match &typed.types.0[at] {
        Type::Any => json!({"any": 1}),
        Type::Bool => one_of(rng, 2).into(),
        Type::Integer { .. } => (rng.next_u32() % 1000).into(),
        Type::Number => 1.5.into(),
        Type::Text => "text".into(),
        Type::Parsed(Parsed { go: Some(_), .. }) => "dGV4dA==".into(),
        Type::Parsed(Parsed { blank: None, .. }) => "2026-01-02T03:04:05Z".into(),
        Type::Parsed(_) => "8080".into(),
        Type::List(of) => (0..few(rng))
            .map(|_| some(typed, *of, depth + 1, rng))
            .collect(),
        Type::Map(of) => (0..few(rng))
            .map(|key| (key.to_string(), some(typed, *of, depth + 1, rng)))
            .collect::<Map<_, _>>()
            .into(),
        Type::Either(choices) => {
            let choice = choices[rng.next_u32() as usize % choices.len()];
            some(typed, choice, depth + 1, rng)
        }
        Type::Struct(of) => {
            // In their order, that a seed gives the same value again.
            let mut names: Vec<_> = of.fields.keys().collect();
            names.sort();
            let mut map = Map::new();
            for name in names {
                if one_of(rng, 30) {
                    map.insert(name.clone(), Value::Null);
                } else if depth == 0 || one_of(rng, 2 + depth as u32) {
                    let of = of.fields[name].of;
                    map.insert(name.clone(), some(typed, of, depth + 1, rng));
                }
            }
            if one_of(rng, 20) {
                map.insert("unheardOf".to_owned(), json!({"a": [1]}));
            }
            map.into()
        }
    }
}

fn as_its_struct<T: Resource + JsonSchema + DeserializeOwned + Serialize>(rng: &mut TestRng) {
    let typed = typed::<T>();
    let mut value = some(&typed, typed.root, 0, rng);
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), T::API_VERSION.into());
        map.insert("kind".to_owned(), T::KIND.into());
    }
    let by_struct = serde_json::from_value::<T>(value.clone());
    let mut by_type = value.clone();
    let found = typed.read(&mut by_type, &mut Vec::new());
    match (by_struct, found) {
        (Ok(by_struct), Ok(())) => {
            assert_eq!(serde_json::to_value(by_struct).unwrap(), by_type, "{value}");
        }
        (Err(_), Err(_)) => (),
        (by_struct, found) => panic!("{:?} and {found:?} of {value}", by_struct.err()),
    }
}

proptest! {
    // Each case is a value of eight kinds, of hundreds of fields.
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn values_are_read_as_structs_read_them(mut rng in Just(()).prop_perturb(|(), rng| rng)) {
        as_its_struct::<Pod>(&mut rng);
        as_its_struct::<Deployment>(&mut rng);
        as_its_struct::<Service>(&mut rng);
        as_its_struct::<Secret>(&mut rng);
        as_its_struct::<Event>(&mut rng);
        as_its_struct::<Node>(&mut rng);
        as_its_struct::<EndpointSlice>(&mut rng);
        as_its_struct::<CustomResourceDefinition>(&mut rng);
    }
}

#[test]
fn unknown_fields_are_named_by_where_they_are() {
    let (found, unknown) = read::<Pod>(json!({
        "kind": "Pod", "apiVersion": "v1", "odd": 1,
        "metadata": {"labels": {"a": "b"}, "odder": {}},
        "spec": {"containers": [{"name": "a"}, {"name": "b", "immage": "x"}]},
    }));
    assert!(
        found.unwrap()["spec"]["containers"][1]
            .get("immage")
            .is_none()
    );
    assert_eq!(
        unknown,
        ["metadata.odder", "odd", "spec.containers[1].immage"]
    );
}

#[test]
fn required_fields_are_there_and_nulls_are_not() {
    let (found, _) = read::<Pod>(json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"labels": {"a": null}, "annotations": null}, "spec": {},
    }));
    let wanted = json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": {"labels": {"a": ""}}, "spec": {"containers": []},
    });
    assert_eq!(found.unwrap(), wanted);
}

#[test]
fn wrong_types_are_refused_as_go_refuses_them() {
    let refusal = |metadata: Value, spec: Value| {
        let (found, _) = read::<Pod>(json!({"metadata": metadata, "spec": spec}));
        found.unwrap_err()
    };
    let field = "json: cannot unmarshal {} into Go struct field ";
    let wanted = |what: &str, rest: &str| format!("{}{rest}", field.replace("{}", what));
    assert_eq!(
        refusal(json!({"labels": {"a": 1}}), json!({})),
        wanted("number", "ObjectMeta.metadata.labels of type string")
    );
    assert_eq!(
        refusal(json!({}), json!({"containers": {}})),
        wanted("object", "PodSpec.spec.containers of type []v1.Container")
    );
    assert_eq!(
        refusal(
            json!({}),
            json!({"containers": [{"ports": [{"containerPort": 3_000_000_000_u64}]}]})
        ),
        wanted(
            "number 3000000000",
            "ContainerPort.spec.containers.ports.containerPort of type int32"
        )
    );
    let secret = read::<Secret>(json!({"data": {"a": 1}})).0.unwrap_err();
    assert_eq!(secret, wanted("number", "Secret.data of type []uint8"));
    let secret = read::<Secret>(json!({"data": {"a": "a*b="}}))
        .0
        .unwrap_err();
    assert_eq!(secret, "illegal base64 data at input byte 1");
}
