//! Small worlds for tests: a view, said in a few lines.

use std::net::IpAddr;

use crate::addr::{Family, Mac};
use crate::egress::model::{
    EgressAddress, Endpoint, EndpointState, Namespace, Node, Pairs, Pod, PodName, Pool, View,
};

/// `a=b,c=d` as pairs.
pub(crate) fn pairs(text: &str) -> Pairs {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// `shop/cart` as a name.
pub(crate) fn pod_name(text: &str) -> PodName {
    let (namespace, name) = text.split_once('/').unwrap();
    PodName::new(namespace, name)
}

fn annotations(list: &[(&str, &str)]) -> Pairs {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// Builds a view; every line takes it and gives it back.
pub(crate) trait World: Sized {
    fn namespace(self, name: &str, labels: &str, annotations: &[(&str, &str)]) -> Self;
    fn pod(self, name: &str, labels: &str, annotations: &[(&str, &str)]) -> Self;
    fn node(self, name: &str, ips: &[&str]) -> Self;
    /// A pool that any namespace may be a gateway of and use.
    fn pool(self, name: &str, cidr: &str) -> Self;
    /// The pool of that name, changed.
    fn with_pool(self, name: &str, change: impl FnOnce(&mut Pool)) -> Self;
    /// A ready gateway with these addresses, each from the pool that holds it.
    fn gateway(self, pod: &str, node: &str, ips: &[&str]) -> Self;
    /// The gateway of that pod, changed.
    fn with_gateway(self, pod: &str, change: impl FnOnce(&mut Endpoint)) -> Self;
    fn broken(self, object: &str) -> Self;
}

impl World for View {
    fn namespace(mut self, name: &str, labels: &str, list: &[(&str, &str)]) -> View {
        let namespace = Namespace { labels: pairs(labels), annotations: annotations(list) };
        self.namespaces.insert(name.to_owned(), namespace);
        self
    }

    fn pod(mut self, name: &str, labels: &str, list: &[(&str, &str)]) -> View {
        let node = Some("n1".to_owned());
        let pod = Pod { labels: pairs(labels), annotations: annotations(list), node, ..Pod::default() };
        self.pods.insert(pod_name(name), pod);
        self
    }

    fn node(mut self, name: &str, ips: &[&str]) -> View {
        let internal_ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.nodes.insert(name.to_owned(), Node { internal_ips, ..Node::default() });
        self
    }

    fn pool(mut self, name: &str, cidr: &str) -> View {
        let cidr: crate::addr::Cidr = cidr.parse().unwrap();
        let block_size = if cidr.family() == Family::V4 { 31 } else { 127 };
        let pool = Pool {
            gateway_namespaces: Some("all()".to_owned()),
            client_namespaces: Some("all()".to_owned()),
            ..Pool::new(name, cidr, block_size)
        };
        self.pools.insert(name.to_owned(), pool);
        self
    }

    fn with_pool(mut self, name: &str, change: impl FnOnce(&mut Pool)) -> View {
        change(self.pools.get_mut(name).unwrap());
        self
    }

    fn gateway(mut self, pod: &str, node: &str, ips: &[&str]) -> View {
        let pool = |ip: IpAddr| self.pools.values().find(|pool| pool.cidr.contains(ip)).unwrap().name.clone();
        let ips = ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap());
        let addresses: Vec<EgressAddress> = ips.map(|ip| EgressAddress::leased(ip, pool(ip))).collect();
        self.endpoints.push(Endpoint {
            pod: pod_name(pod),
            uid: None,
            attachment: format!("net/{}/eth0", pod.replace('/', "-")),
            node: node.to_owned(),
            underlay: self.nodes.get(node).map(|node| node.internal_ips.clone()).unwrap_or_default(),
            vni: 5000,
            mac: Mac::default(),
            addresses,
            state: EndpointState::Ready,
            generation: 1,
            problems: Vec::new(),
        });
        self
    }

    fn with_gateway(mut self, pod: &str, change: impl FnOnce(&mut Endpoint)) -> View {
        let pod = pod_name(pod);
        change(self.endpoints.iter_mut().find(|endpoint| endpoint.pod == pod).unwrap());
        self
    }

    fn broken(mut self, object: &str) -> View {
        self.broken.insert(object.to_owned());
        self
    }
}
