//! Services of one address family and of two (KEP-563).

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::{ApiConfig, ApiServer, IpFamily, flags};

/// A client of a cluster with networks of these families.
fn cluster(families: &[IpFamily]) -> Client {
    let config = ApiConfig {
        service_cidrs: families.iter().copied().map(flags::service_cidr).collect(),
        ..ApiConfig::alone().unwrap()
    };
    ApiServer::new(config).unwrap().client("test")
}

/// What became of a Service: `policy families addresses`, the addresses by their networks; or why
/// there is none.
async fn made(client: &Client, spec: Value) -> String {
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let mut object = json!({"metadata": {"generateName": "s-"}, "spec": {"ports": [{"port": 80}]}});
    json_patch::merge(&mut object["spec"], &spec);
    let object = serde_json::from_value(object).unwrap();
    shown(api.create(&PostParams::default(), &object).await)
}

fn shown(outcome: kube::Result<Service>) -> String {
    let spec = match outcome {
        Ok(service) => service.spec.unwrap(),
        Err(kube::Error::Api(status)) => {
            let (_, why) = status.message.split_once("is invalid: ").unwrap();
            return why.to_owned();
        }
        Err(other) => panic!("{other}"),
    };
    let ips = spec.cluster_ips.unwrap();
    assert_eq!(spec.cluster_ip.as_ref(), ips.first());
    let ips: Vec<_> = ips
        .iter()
        .map(|ip| match ip.parse() {
            Ok(ip) => {
                let family = IpFamily::of(ip);
                assert!(flags::service_cidr(family).contains(&ip), "{ip}");
                family.name()
            }
            Err(_) => ip,
        })
        .collect();
    let families = spec.ip_families.unwrap().join(" ");
    format!(
        "{} [{families}] {}",
        spec.ip_family_policy.unwrap(),
        ips.join(" ")
    )
}

#[tokio::test]
async fn families_are_as_they_are_asked_for() {
    let (v4, v6) = (IpFamily::V4, IpFamily::V6);
    let (single, both) = (cluster(&[v4]), cluster(&[v4, v6]));
    let sixth = cluster(&[v6, v4]);
    let selected = json!({"app": "a"});
    let prefer = json!({"ipFamilyPolicy": "PreferDualStack"});
    let require = json!({"ipFamilyPolicy": "RequireDualStack"});
    for (client, spec, expected) in [
        (&single, json!({}), "SingleStack [IPv4] IPv4"),
        (&single, prefer.clone(), "PreferDualStack [IPv4] IPv4"),
        (
            &single,
            require.clone(),
            r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
        ),
        (
            &single,
            json!({"ipFamilies": ["IPv6"]}),
            r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
        ),
        (
            &single,
            json!({"clusterIP": "fd00:10:96::5"}),
            r#"spec.clusterIPs[0]: Invalid value: ["fd00:10:96::5"]: IPv6 is not configured on this cluster"#,
        ),
        // A headless Service without a selector may have families that the cluster has not.
        (
            &single,
            json!({"clusterIP": "None"}),
            "RequireDualStack [IPv4 IPv6] None",
        ),
        (
            &single,
            json!({"clusterIP": "None", "selector": selected}),
            "SingleStack [IPv4] None",
        ),
        (&both, json!({}), "SingleStack [IPv4] IPv4"),
        (
            &both,
            json!({"ipFamilies": ["IPv6"]}),
            "SingleStack [IPv6] IPv6",
        ),
        (&both, prefer, "PreferDualStack [IPv4 IPv6] IPv4 IPv6"),
        (
            &both,
            require.clone(),
            "RequireDualStack [IPv4 IPv6] IPv4 IPv6",
        ),
        (
            &both,
            json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}),
            "PreferDualStack [IPv6 IPv4] IPv6 IPv4",
        ),
        (
            &both,
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "fd00:10:96::5"}),
            "RequireDualStack [IPv6 IPv4] IPv6 IPv4",
        ),
        (
            &both,
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            r#"spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"#,
        ),
        (
            &both,
            json!({"ipFamilies": ["IPv5"]}),
            r#"spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6""#,
        ),
        (
            &both,
            json!({"ipFamilyPolicy": "Dual"}),
            r#"spec.ipFamilyPolicy: Unsupported value: "Dual": supported values: "PreferDualStack", "RequireDualStack", "SingleStack""#,
        ),
        (
            &both,
            json!({"ipFamilies": ["IPv6"], "clusterIP": "10.96.3.4"}),
            r#"spec.clusterIPs[0]: Invalid value: "10.96.3.4": expected an IPv6 value as indicated by `ipFamilies[0]`"#,
        ),
        (
            &both,
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4", "10.96.3.5"]}),
            r#"spec.clusterIPs: Invalid value: ["10.96.3.4","10.96.3.5"]: may specify no more than one IP for each IP family"#,
        ),
        (
            &both,
            json!({"clusterIP": "fd00::5"}),
            r#"spec.clusterIPs: Invalid value: ["fd00::5"]: failed to allocate IP fd00::5: the provided IP (fd00::5) is not in the valid range. The range of valid IPs is fd00:10:96::/112"#,
        ),
        (
            &both,
            json!({"clusterIPs": ["10.96.3.9"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.3.9\"]: must be empty when `clusterIP` is not specified",
        ),
        (
            &both,
            json!({"clusterIP": "10.96.3.9", "clusterIPs": ["10.96.3.8"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.3.8\"]: first value must match `clusterIP`",
        ),
        (
            &both,
            json!({"type": "ExternalName", "externalName": "a.example", "ipFamilies": ["IPv4"]}),
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
        ),
        (
            &both,
            json!({"type": "ExternalName", "externalName": "a.example", "ipFamilyPolicy": "SingleStack"}),
            "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
        ),
        (&sixth, json!({}), "SingleStack [IPv6] IPv6"),
        (&sixth, require, "RequireDualStack [IPv6 IPv4] IPv6 IPv4"),
    ] {
        assert_eq!(made(client, spec.clone()).await, expected, "{spec}");
    }
}

#[tokio::test]
async fn a_second_family_comes_and_goes() {
    let client = cluster(&[IpFamily::V4, IpFamily::V6]);
    let api: Api<Service> = Api::default_namespaced(client);
    let object = json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}});
    let made = api
        .create(
            &PostParams::default(),
            &serde_json::from_value(object).unwrap(),
        )
        .await
        .unwrap();
    let first = made.spec.unwrap().cluster_ip.unwrap();
    let patched = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        api.patch("s", &PatchParams::default(), &patch).await
    };
    let two = patched(json!({"ipFamilyPolicy": "RequireDualStack"})).await;
    let ips = two
        .as_ref()
        .unwrap()
        .spec
        .as_ref()
        .unwrap()
        .cluster_ips
        .clone()
        .unwrap();
    assert_eq!(ips[0], first, "the first address stays");
    assert_eq!(shown(two), "RequireDualStack [IPv4 IPv6] IPv4 IPv6");
    for (spec, why) in [
        (
            json!({"clusterIPs": [first]}),
            r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": must be 'SingleStack' to release the secondary cluster IP"#.to_owned(),
        ),
        (
            json!({"ipFamilies": ["IPv4"]}),
            r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": must be 'SingleStack' to release the secondary IP family"#.to_owned(),
        ),
        (
            json!({"clusterIP": "10.96.9.9"}),
            r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": must be 'SingleStack' to release the secondary cluster IP"#.to_owned(),
        ),
        (
            json!({"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9", ips[1]]}),
            format!(r#"spec.clusterIPs[0]: Invalid value: ["10.96.9.9","{}"]: may not change once set"#, ips[1]),
        ),
    ] {
        assert_eq!(shown(patched(spec.clone()).await), why, "{spec}");
    }
    let one = patched(json!({"ipFamilyPolicy": "SingleStack"})).await;
    assert_eq!(
        one.as_ref().unwrap().spec.as_ref().unwrap().cluster_ip,
        Some(first.clone())
    );
    assert_eq!(shown(one), "SingleStack [IPv4] IPv4");
    let other = patched(json!({"ipFamilies": ["IPv6"]})).await;
    assert!(
        shown(other).contains("expected an IPv6 value"),
        "the first family stays"
    );
    // What is given back can be had again.
    let again =
        patched(json!({"ipFamilyPolicy": "PreferDualStack", "clusterIPs": [first, ips[1]]})).await;
    assert_eq!(again.unwrap().spec.unwrap().cluster_ips.unwrap(), ips);
}

#[tokio::test]
async fn service_cidrs_say_where_addresses_are_from() {
    use k8s_openapi::api::networking::v1::ServiceCIDR;
    let client = cluster(&[IpFamily::V4]);
    let cidrs: Api<ServiceCIDR> = Api::all(client.clone());
    let own = cidrs.get("kubernetes").await.unwrap();
    assert_eq!(own.spec.unwrap().cidrs.unwrap(), ["10.96.0.0/16"]);
    let add = async |name: &str, networks: &[&str]| {
        let object = json!({"metadata": {"name": name}, "spec": {"cidrs": networks}});
        let object = serde_json::from_value(object).unwrap();
        let added = cidrs.create(&PostParams::default(), &object).await;
        added.map(drop).map_err(|error| error.to_string())
    };
    for (networks, why) in [
        (
            &[][..],
            "spec.cidrs: Required value: at least one CIDR required",
        ),
        (
            &["10.97.0.1/24"],
            "must not have bits set beyond the prefix length",
        ),
        (&["ten"], "must be a valid CIDR value"),
        (
            &["10.97.0.0/24", "10.98.0.0/24"],
            "no more than one IP for each IP family",
        ),
    ] {
        let refused = add("wrong", networks).await.unwrap_err();
        assert!(refused.contains(why), "{networks:?}: {refused}");
    }
    let there = json!({"clusterIP": "10.97.0.5"});
    assert!(
        made(&client, there.clone())
            .await
            .contains("not in the valid range")
    );
    add("more", &["10.97.0.0/24"]).await.unwrap();
    let api: Api<Service> = Api::default_namespaced(client);
    let object = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.97.0.5", "ports": [{"port": 80}]}});
    let object = serde_json::from_value(object).unwrap();
    let service = api.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(
        service.spec.unwrap().cluster_ip.as_deref(),
        Some("10.97.0.5")
    );
}
