//! The builders of `tests/stores`, with stories that run in the store over the API.

#[allow(dead_code, reason = "the stories of files are not run here")]
#[path = "../stores/world.rs"]
mod stores;

use std::sync::{Mutex, MutexGuard, PoisonError};

use egret::ipam::Store;
use egret::kube::{Access, Client, ClusterStore};

use crate::server::server;
pub(crate) use stores::*;

/// One story at a time: they all call their pools alike.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client of the API server; the calling thread moves into the server's network.
pub(crate) fn client_of(user: &str) -> Client {
    let server = server();
    server.enter().unwrap();
    let access = Access::from_file(&server.kubeconfig(user), None).unwrap();
    Client::new(access).unwrap()
}

/// No object of ours and of Calico's and Cilium's is left by another story.
pub(crate) fn forget(client: &Client) {
    for kind in [
        "egret.dev/v1alpha1/egressblocks",
        "egret.dev/v1alpha1/egressendpoints",
        "egret.dev/v1alpha1/egressgatewaypolicies",
        "egret.dev/v1alpha1/egressnodes",
        "egret.dev/v1alpha1/egresspools",
        "egret.dev/v1alpha1/egressranges",
        "projectcalico.org/v3/egressgatewaypolicies",
        "projectcalico.org/v3/ippools",
        "cilium.io/v2/ciliumegressgatewaypolicies",
    ] {
        // The definitions of the foreign ones may not be there.
        if let Err(error) = client.delete(&format!("/apis/{kind}")) {
            assert!(error.is_absent(), "{kind}: {error}");
        }
    }
}

/// No block is left.
pub(crate) fn forget_blocks(client: &Client) {
    client.delete("/apis/egret.dev/v1alpha1/egressblocks").unwrap();
}

/// Runs a story in the store over the API. The others are `tests/stores`' affair.
pub(crate) fn in_each_store(story: impl Fn(&dyn Store)) {
    let _alone = alone();
    let client = client_of("admin");
    forget_blocks(&client);
    story(&ClusterStore::new(&client));
}
