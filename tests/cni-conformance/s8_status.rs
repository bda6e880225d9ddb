//! Section 8: STATUS is quick, and an error only when not even a pod without egress could start.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::call::Call;
use crate::world::{Kind, World, for_an_unselected_pod, for_every_pod, output};

/// STATUS as libcni calls it.
fn status(world: &World) -> Call {
    let empty = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
    empty.iter().fold(world.call("STATUS").lacking("prevResult"), |call, name| call.env(name, ""))
}

#[test]
fn row_8_1_a_node_that_can_start_pods_is_ready() {
    for_every_pod(|world| {
        let before = world.dump();
        status(world).run().succeeds();
        world.dump().is_as(&before);
        world.add("c1");
        status(world).run().succeeds();
    });
}

#[test]
fn row_8_2_a_node_that_cannot_start_any_pod_says_50() {
    for_an_unselected_pod(|world| {
        fs::write("/run/file", "").unwrap();
        let call = status(world).with("runDir", "/run/file/egret");
        call.run().fails(50, &["runDir", "/run/file"]);
    });
}

#[test]
fn row_8_2_a_node_whose_records_find_no_room_says_50() {
    for_every_pod(|world| {
        world.add("c1");
        let before = world.records();
        output(&["mount", "-t", "tmpfs", "-o", "size=64k", "full", "/run/egret/n1"]);
        let filled = fs::write("/run/egret/n1/all", [0; 1 << 17]);
        assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        status(world).run().fails(50, &["runDir", "/run/egret/n1", "free space"]);
        fs::remove_file("/run/egret/n1/all").unwrap();
        status(world).run().succeeds();
        let left: Vec<_> = fs::read_dir("/run/egret/n1").unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        output(&["umount", "/run/egret/n1"]);
        assert_eq!(world.records(), before);
    });
}

#[test]
fn row_8_2_a_node_whose_objects_cannot_be_listed_says_50() {
    for_an_unselected_pod(|world| {
        assert!(!fs::exists("/var/lib/egret/objects").unwrap());
        status(world).run().succeeds(); // the first ADD makes it
        fs::write("/var/lib/egret/objects", "").unwrap();
        world.call("ADD").run().fails(5, &["/var/lib/egret/objects"]);
        status(world).run().fails(50, &["stateDir", "/var/lib/egret/objects"]);
    });
}

/// A state directory that is not mounted: under running pods nobody makes an empty one in its place, so no pod starts.
#[test]
fn row_8_2_a_node_whose_objects_went_from_under_its_pods_says_50() {
    for_every_pod(|world| {
        world.add("c1");
        let objects = ["/var/lib/egret/objects", "/var/lib/egret/away"];
        fs::rename(objects[0], objects[1]).unwrap();
        if world.kind == Kind::Unselected {
            status(world).run().succeeds();
            world.add("c2"); // which makes it
            return;
        }
        world.call("ADD").container("c2").run().fails(5, &[objects[0]]);
        status(world).run().fails(50, &["stateDir", objects[0]]);
        fs::rename(objects[1], objects[0]).unwrap();
        status(world).run().succeeds();
    });
}

#[test]
fn row_8_2_without_root_it_says_50() {
    for_an_unselected_pod(|world| {
        world.add("c1");
        status(world).by_nobody().run().fails(50, &["runDir", "run as root"]);
    });
}

#[test]
fn row_8_2_without_its_agent_it_is_an_error_only_where_none_ever_was() {
    for_an_unselected_pod(|world| {
        let cluster = || status(world).with("mode", "cluster").run();
        cluster().fails(50, &["agent.sock", "no plan"]);
        let knew = json!({"egressIPSupport": "EnabledPerNamespaceOrPerPod", "exempt": [], "namespaces": {}});
        fs::write("/var/lib/egret/namespaces.n1.json", knew.to_string()).unwrap();
        cluster().succeeds();
    });
}

/// An error would make the whole node NotReady, and after minutes everything on it is evicted: pods can start, so it is none.
#[test]
fn row_8_3_what_running_pods_suffer_is_no_error_of_the_node() {
    for_every_pod(|world| {
        world.add("c1");
        output(&["nft", "flush", "ruleset"]);
        if world.kind != Kind::Unselected {
            world.call("CHECK").run().fails(103, &["egret"]);
        }
        status(world).run().succeeds();
    });
}

#[test]
fn row_8_4_status_came_with_1_1_0() {
    for_an_unselected_pod(|world| {
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            world.call("STATUS").version(version).run().fails(1, &["config version does not allow STATUS"]);
        }
    });
}

#[test]
fn row_8_5_within_a_second_there_is_an_answer() {
    for_an_unselected_pod(|world| {
        let start = Instant::now();
        status(world).stdin_stays_open().run().fails(50, &["1000 ms"]);
        // The end it names is its own; the rest of the time is the busy machine's.
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        status(world).run().succeeds();
    });
}

#[test]
fn row_8_6_a_path_is_not_needed() {
    for_an_unselected_pod(|world| {
        status(world).without("CNI_PATH").run().succeeds();
    });
}
