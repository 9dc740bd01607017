//! What the controller sees of the cluster.
//!
//! Start from [`Stores::watch`]. What they hold at one moment is an [`Input`].

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_api::backendtlspolicies::BackendTlsPolicy;
use gateway_api::experimental::httproutes::HttpRoute;
use gateway_api::experimental::tcproutes::TcpRoute;
use gateway_api::experimental::udproutes::UdpRoute;
use gateway_api::gatewayclasses::GatewayClass;
use gateway_api::gateways::Gateway;
use gateway_api::grpcroutes::GrpcRoute;
use gateway_api::listenersets::ListenerSet;
use gateway_api::referencegrants::ReferenceGrant;
use gateway_api::tlsroutes::TlsRoute;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};

use super::input::Input;
use super::route::Route;
use crate::l7::cluster::Services;
use crate::world::World;

/// A store of each kind.
pub(super) struct Stores {
    pub(super) classes: Store<GatewayClass>,
    pub(super) gateways: Store<Gateway>,
    pub(super) listener_sets: Store<ListenerSet>,
    pub(super) http_routes: Store<HttpRoute>,
    pub(super) grpc_routes: Store<GrpcRoute>,
    pub(super) tls_routes: Store<TlsRoute>,
    pub(super) tcp_routes: Store<TcpRoute>,
    pub(super) udp_routes: Store<UdpRoute>,
    pub(super) grants: Store<ReferenceGrant>,
    pub(super) policies: Store<BackendTlsPolicy>,
    pub(super) namespaces: Store<Namespace>,
    pub(super) services: Store<Service>,
    pub(super) slices: Store<EndpointSlice>,
    pub(super) secrets: Store<Secret>,
    pub(super) config_maps: Store<ConfigMap>,
    pub(super) pods: Store<Pod>,
    pub(super) deployments: Store<Deployment>,
}

impl Stores {
    /// Begins to fill them.
    pub(super) fn watch(world: &mut World, client: &Client) -> Self {
        Self {
            classes: world.watch(Api::all(client.clone())),
            gateways: world.watch(Api::all(client.clone())),
            listener_sets: world.watch(Api::all(client.clone())),
            http_routes: world.watch(Api::all(client.clone())),
            grpc_routes: world.watch(Api::all(client.clone())),
            tls_routes: world.watch(Api::all(client.clone())),
            tcp_routes: world.watch(Api::all(client.clone())),
            udp_routes: world.watch(Api::all(client.clone())),
            grants: world.watch(Api::all(client.clone())),
            policies: world.watch(Api::all(client.clone())),
            namespaces: world.watch(Api::all(client.clone())),
            services: world.watch(Api::all(client.clone())),
            slices: world.watch(Api::all(client.clone())),
            secrets: world.watch(Api::all(client.clone())),
            config_maps: world.watch(Api::all(client.clone())),
            pods: world.watch(Api::all(client.clone())),
            deployments: world.watch(Api::all(client.clone())),
        }
    }

    fn routes(&self) -> Vec<Route> {
        let http = self.http_routes.state().into_iter().map(Route::from);
        let grpc = self.grpc_routes.state().into_iter();
        let tls = self.tls_routes.state().into_iter();
        let tcp = self.tcp_routes.state().into_iter();
        let udp = self.udp_routes.state().into_iter();
        http.chain(grpc.filter_map(|route| Route::of_grpc(&route)))
            .chain(tls.filter_map(|route| Route::of_tls(&route)))
            .chain(tcp.filter_map(|route| Route::of_tcp(&route)))
            .chain(udp.filter_map(|route| Route::of_udp(&route)))
            .collect()
    }

    /// What they hold now.
    pub(super) fn input(&self) -> Input {
        let namespaces = self.namespaces.state();
        Input {
            classes: self.classes.state(),
            gateways: self.gateways.state(),
            listener_sets: self.listener_sets.state(),
            routes: self.routes(),
            grants: self.grants.state(),
            policies: self.policies.state(),
            namespaces: namespaces
                .iter()
                .map(|namespace| (namespace.name_any(), namespace.labels().clone()))
                .collect(),
            services: Services::new(self.services.state(), self.slices.state()),
            secrets: by_name(self.secrets.state()),
            config_maps: by_name(self.config_maps.state()),
        }
    }
}

fn by_name<K: ResourceExt>(objects: Vec<Arc<K>>) -> BTreeMap<(String, String), Arc<K>> {
    let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
    let keyed = objects.into_iter().map(|object| (key(&object), object));
    keyed.collect()
}
