//! What only the store over the API can get wrong: many nodes at once, objects that others wrote, rights that are missing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use egret::ipam::{After, IpamError, Store, release};
use egret::kube::{ClusterStore, Mirror, blocks};
use egret::testbed::repository;

use crate::following::follow_here;
use crate::server::{kubectl, server};
use crate::world::*;

#[test]
fn eight_nodes_get_every_address_once() {
    let _alone = alone();
    forget_blocks(&client_of("admin"));
    let started = Instant::now();
    let work = |node: usize| {
        let client = client_of("admin");
        let pool = pool("p", "10.0.0.0/26", 31);
        let claim = |n: usize| {
            let owner = format!("pod:{node}-{n}");
            loop {
                let tenant = tenant(&owner, &format!("node{node}"), &format!("c{n}"));
                // One store for one claim, as a node does it; who is beaten too often tries again, as the kubelet does.
                match ask(&ClusterStore::new(&client), &[&pool], tenant, 0) {
                    Ok(claimed) => return claimed.lease.ip,
                    Err(IpamError::Contended(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        (0..8).map(claim).collect::<Vec<_>>()
    };
    let given: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..8).map(|node| scope.spawn(move || work(node))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    println!("64 claims of 8 nodes: {:?}", started.elapsed());
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 64, "an address was given twice: {given:?}");

    // One more finds the pool full, and says so with the numbers that are true.
    let client = client_of("admin");
    let full =
        ask(&ClusterStore::new(&client), &[&pool("p", "10.0.0.0/26", 31)], tenant("pod:x", "node0", "x"), 0);
    assert!(full.unwrap_err().to_string().contains("64 of 64 leased"));
}

#[test]
fn who_is_late_has_not_written_and_sees_what_is_there() {
    let _alone = alone();
    let client = client_of("admin");
    forget_blocks(&client);
    let (one, two) = (ClusterStore::new(&client), ClusterStore::new(&client));
    let pool = pool("p", "10.0.0.0/31", 31);
    given(&one, &[&pool], tenant("pod:a", "node1", "a"), 0);
    // Two begins with what is true now, and then One writes.
    assert_eq!(two.summary("p").unwrap().of_owner(&owner("pod:a")).len(), 1);
    given(&one, &[&pool], tenant("pod:b", "node1", "b"), 0);
    let full = ask(&two, &[&pool], tenant("pod:c", "node2", "c"), 0).unwrap_err();
    assert!(full.to_string().contains("2 of 2 leased"), "{full}");
}

#[test]
fn a_block_is_deleted_as_it_was_seen_or_not_at_all() {
    let _alone = alone();
    let client = client_of("admin");
    forget_blocks(&client);
    let (one, two) = (ClusterStore::new(&client), ClusterStore::new(&client));
    let (pool, cidr) = (pool("p", "10.0.0.0/30", 30), "10.0.0.0/30".parse().unwrap());
    given(&one, &[&pool], tenant("pod:a", "node1", "a"), 0);
    let (block, seen) = one.read("p", cidr).unwrap().unwrap();
    given(&two, &[&pool], tenant("pod:b", "node1", "b"), 0);
    assert_eq!(one.delete(&block, seen).unwrap(), None, "somebody leased of it since");
    let (block, seen) = one.read("p", cidr).unwrap().unwrap();
    assert_eq!(block.allocations.len(), 2);
    assert!(one.delete(&block, seen).unwrap().is_some());
    assert_eq!(one.read("p", cidr).unwrap(), None);
    assert_eq!(one.delete(&block, seen).unwrap(), None, "it is gone");
    // Whoever knew it leases of one that is made anew.
    assert_eq!(two.summary("p").unwrap().of_owner(&owner("pod:b")).len(), 1);
    given(&two, &[&pool], tenant("pod:c", "node1", "c"), 0);
    assert_eq!(one.read("p", cidr).unwrap().unwrap().0.allocations.len(), 1);
}

#[test]
fn a_block_that_is_not_what_its_name_says_gives_nothing() {
    let _alone = alone();
    let client = client_of("admin");
    forget_blocks(&client);
    let odd = r#"{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: p.v4-10-0-0-0-31},
        spec: {pool: p, cidr: 10.0.0.2/31, sequence: 0, allocations: {}}}"#;
    kubectl(&["create", "-f", "-"], odd);
    let store = ClusterStore::new(&client);
    let pool = pool("p", "10.0.0.0/30", 31);
    let mut all = BTreeSet::new();
    for n in 0..2 {
        all.insert(given(&store, &[&pool], tenant(&format!("pod:{n}"), "node1", &n.to_string()), 0));
    }
    assert_eq!(all, BTreeSet::from(["10.0.0.2".to_owned(), "10.0.0.3".to_owned()]));
    let error = store.read("p", "10.0.0.0/31".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("EgressBlock p.v4-10-0-0-0-31 is damaged: it is block 10.0.0.2/31"), "{error}");
}

#[test]
fn a_blocks_range_never_changes_and_its_sequence_only_rises() {
    let _alone = alone();
    let client = client_of("admin");
    forget_blocks(&client);
    let pool = pool("p", "10.0.0.0/31", 31);
    given(&ClusterStore::new(&client), &[&pool], tenant("pod:a", "node1", "a"), 0);
    let name = blocks::object_name("p", "10.0.0.0/31".parse().unwrap());
    for (patch, sentence) in [
        (r#"{"spec": {"pool": "q"}}"#, "a block stays what it is"),
        (r#"{"spec": {"sequence": 0}}"#, "the sequence of a block only rises"),
    ] {
        let patch = ["patch", "eblock", &name, "--type=merge", "-p", patch];
        let said = server().kubectl(&patch, "").unwrap_err().to_string();
        assert!(said.contains(sentence), "{said}");
    }
}

#[test]
fn who_may_not_is_told_what_and_where_the_rights_are() {
    let store_of_nobody = client_of("nobody");
    let error = ClusterStore::new(&store_of_nobody).pools().unwrap_err().to_string();
    assert!(error.contains("User \"nobody\" cannot list resource \"egressblocks\""), "{error}");
    let step = "(403 Forbidden). Grant it: `deploy/rbac.yaml` has the role that Egret needs: its rule for apiGroups [egret.dev], \
                resources [egressblocks] needs the verb list";
    assert!(error.ends_with(step), "{error}");
}

#[test]
fn the_role_in_deploy_is_enough_for_leases_and_for_following_and_no_more() {
    let _alone = alone();
    forget_blocks(&client_of("admin"));
    let rights = std::fs::read_to_string(repository().join("deploy/rbac.yaml")).unwrap();
    let bind =
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: lab-agent},
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: egret-agent},
        subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: agent}]}";
    for manifest in [&rights[..], bind] {
        kubectl(&["apply", "-f", "-"], manifest);
    }
    let client = Arc::new(client_of("agent"));
    let pool = pool("p", "10.0.0.0/31", 31);
    let store = ClusterStore::new(&client);
    // The server learns of rights by a watch of its own.
    let started = Instant::now();
    while store.pools().is_err() {
        assert!(started.elapsed().as_secs() < 120, "{:?}", store.pools());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    given(&store, &[&pool], tenant("pod:a", "node1", "a"), 0);
    given(&store, &[&pool], tenant("pod:b", "node1", "b"), 0);
    assert_eq!(release(&store, &holder("node1", "a"), After::Owner, 10).unwrap().len(), 1);
    let following = follow_here(&client);
    crate::following::until(&following, Mirror::is_synced);
    for path in ["/api/v1/secrets", "/apis/apps/v1/deployments"] {
        assert!(client.get(path).unwrap_err().is_forbidden(), "{path}");
    }
    kubectl(&["delete", "clusterrolebinding", "lab-agent"], "");
}
