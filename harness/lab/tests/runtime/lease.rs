//! Leader election by Lease, as client-go does it: who replaces the version that it read, leads.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use strata_lab::api::ApiServer;

use crate::{from, soon};

/// Tries to take a lease that it read in some state; whether it leads now.
async fn take(api: &Api<Lease>, read: Option<Lease>, who: &str) -> bool {
    let spec = json!({"holderIdentity": who, "leaseDurationSeconds": 15});
    let outcome = match read {
        None => {
            let lease = from(json!({"metadata": {"name": "leader"}, "spec": spec}));
            api.create(&PostParams::default(), &lease).await
        }
        Some(mut lease) => {
            lease.spec = Some(from(spec));
            api.replace("leader", &PostParams::default(), &lease).await
        }
    };
    match outcome {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 409 => false,
        Err(error) => panic!("{who}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_reach_for_a_lease_at_once_one_leads() {
    let server = ApiServer::alone().unwrap();
    let api = |client: Client| Api::<Lease>::default_namespaced(client);
    for term in 0..20 {
        let read = api(server.client("test")).get_opt("leader").await.unwrap();
        assert_eq!(read.is_some(), term > 0);
        let candidates = (0..8).map(|number| {
            let (api, read) = (api(server.client("test")), read.clone());
            tokio::spawn(async move {
                take(&api, read, &format!("{term}-{number}"))
                    .await
                    .then_some(number)
            })
        });
        let outcomes = soon("a term", futures::future::join_all(candidates)).await;
        let leaders: Vec<u8> = outcomes.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(leaders.len(), 1, "in term {term} lead {leaders:?}");
        let holder = api(server.client("test"))
            .get("leader")
            .await
            .unwrap()
            .spec
            .unwrap()
            .holder_identity;
        assert_eq!(holder, Some(format!("{term}-{}", leaders[0])));
    }
}
