//! What a mesh says of itself and of the routes whose parents are Services.
//!
//! Start from [`report`], a task of the mesh's control plane. Rule: what others wrote into a status stays
//! there.

use gateway_api::experimental::xmeshes::{XMesh, XMeshStatus, XMeshStatusSupportedFeatures};
use k8s_openapi::api::core::v1::Service;
use kube::api::DynamicObject;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};

use super::gamma::Stores;
use super::status::{merge, of_route, unless};
use super::write::write;
use crate::l7::HOLDOFF;
use crate::l7::cluster::Services;
use crate::world::World;

/// What the conformance suite calls the things that are done here, in order.
const FEATURES: [&str; 9] = [
    "Mesh",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
];

/// Says it, at every change, for ever. `controller` is the name that it is said under.
pub(crate) async fn report(client: Client, controller: &str, log: impl Fn(&str)) {
    let mut world = World::default();
    let stores = Stores::watch(&mut world, &client);
    let meshes: Store<XMesh> = world.watch_later(Api::all(client.clone()));
    let services: Store<Service> = world.watch(Api::all(client.clone()));
    world.ready().await;
    loop {
        let services = Services::new(services.state(), []);
        let routes = stores.routes(&services);
        for (route, parents) in routes.parents() {
            let status = of_route(controller, route, &parents);
            if route.status.as_ref() == Some(&status) {
                continue;
            }
            let namespace = route.namespace().unwrap_or_default();
            let resource = route.kind.resource();
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &resource);
            if let Err(error) = write(api, &route.metadata, &status).await {
                log(&format!("{error:#}"));
            }
        }
        for mesh in meshes.state() {
            let status = of_mesh(&mesh);
            if mesh.spec.controller_name != controller || mesh.status.as_ref() == Some(&status) {
                continue;
            }
            let api = Api::<XMesh>::all(client.clone());
            if let Err(error) = write(api, &mesh.metadata, &status).await {
                log(&format!("{error:#}"));
            }
        }
        world.settled(HOLDOFF).await;
    }
}

fn of_mesh(mesh: &XMesh) -> XMeshStatus {
    let old = mesh.status.clone().unwrap_or_default();
    let accepted = unless("Accepted", "Accepted", None, mesh.metadata.generation);
    let feature = |name: &str| XMeshStatusSupportedFeatures {
        name: name.to_owned(),
    };
    XMeshStatus {
        conditions: Some(merge(
            &old.conditions.unwrap_or_default(),
            vec![accepted],
            &["Accepted"],
        )),
        supported_features: Some(FEATURES.map(feature).to_vec()),
    }
}
