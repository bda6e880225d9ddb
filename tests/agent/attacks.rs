//! Somebody pulls at nodes with agents while clients send: rules are deleted under a gateway that leaves with its pod's own address, pods
//! end with words left in their sockets, objects go before their pods do, one call of a crowd fails.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Capture, Outside, Pod, Topology};
use serde_json::json;

use crate::crowds::at_once;
use crate::kernel::Stop;
use crate::lab::{Agent, Lab, PATIENCE, SELECTS_RED, eventually, leaves_by, memory, outside};

/// How long clients send into each new world.
const WINDOW: Duration = Duration::from_millis(300);

fn lab(nodes: u8) -> Lab {
    let keys = json!({"mode": "cluster"}).as_object().unwrap().clone();
    // What selects a pod is in its object alone.
    Lab::with(Topology { nodes, egret_keys: keys, runtime_annotations: false, ..Topology::default() })
}

/// Datagrams on long flows that were opened while the pod's namespace had a path; they go on without it.
fn murmur(pod: &Pod, stop: &AtomicBool) {
    let netns = pod.place().netns().unwrap();
    let open = |family| {
        let any: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0u16; 8].into() };
        let socket = netns.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
        (socket, (Outside::Near.address(family), pod.port()))
    };
    let flows = Family::BOTH.map(open);
    while !stop.load(Ordering::Relaxed) {
        for (socket, to) in &flows {
            let _ = socket.send_to(b"ask\n", to);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// From now on and for a moment nothing of this pod is seen outside.
#[track_caller]
fn is_silent(capture: &Capture, pod: &Pod, when: &str) {
    capture.restart();
    std::thread::sleep(WINDOW);
    assert_eq!(capture.sources_of(pod), BTreeMap::new(), "{} {when}", pod.name);
}

/// The same, and from the moment when it was last forgotten: nothing but the gateway's addresses is.
#[track_caller]
fn shows_only(capture: &Capture, pod: &Pod, gateway: &[IpAddr], when: &str) {
    std::thread::sleep(WINDOW);
    eventually("it is seen at all", || !capture.sources_of(pod).is_empty());
    let seen = capture.sources_of(pod);
    assert!(seen.keys().all(|ip| gateway.contains(ip)), "{} {when}: {seen:?}", pod.name);
    capture.restart();
}

/// Rules are the only ones that know of other nodes' clients. The brake needs no lock and no repair, which both wait here.
#[test]
fn a_gateway_with_its_pods_own_address_is_stopped_while_its_nodes_rules_are_gone() {
    let lab = lab(2);
    lab.own_address_pools().unwrap();
    let _agents = lab.agents();
    let asks = [("egret.dev/ipv4pools", "[\"own\"]"), ("egret.dev/ipv6pools", "[\"own6\"]")];
    lab.pod_object("gw/own", &[("egress-code", "red")], &asks, 1).unwrap();
    let gateway = lab.add_pod(1, "gw/own").unwrap();
    let clients = [lab.client(1, "here"), lab.client(2, "there")];
    let stop = AtomicBool::new(false);
    let capture = lab.capture().unwrap();
    for client in &clients {
        eventually("the gateway is used", || {
            outside().iter().all(|to| client.udp(*to).is_ok_and(|ip| gateway.addresses.contains(&ip)))
        });
    }
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        clients.iter().for_each(|client| drop(scope.spawn(|| murmur(client, &stop))));
        let repairs = egret::store::lock(&memory(1).dir().join("lock"), "the story", PATIENCE).unwrap();
        lab.node(1).sh("nft delete table inet egret; nft delete table netdev egret").unwrap();
        let brakes = || lab.node(1).sh("ip rule; ip -6 rule").unwrap();
        eventually("the gateway is stopped", || {
            gateway.addresses.iter().all(|ip| brakes().contains(&format!("790:\tfrom {ip} ")))
        });
        clients.iter().for_each(|client| is_silent(&capture, client, "while the rules are gone"));
        drop(repairs);
        eventually("and let go again", || !brakes().contains("790:"));
        eventually("nothing differs", || lab.differs(1).is_empty());
        capture.restart();
        clients.iter().for_each(|client| shows_only(&capture, client, &gateway.addresses, "afterwards"));
    });
}

/// What its object said counts until its attachment goes, for an agent that is started anew, too; at its DEL and without its namespace's
/// path it says nothing more.
#[test]
fn a_pod_whose_object_is_gone_stays_a_client_and_one_that_ends_says_nothing_more() {
    let lab = lab(2);
    let mut agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let leases: Vec<IpAddr> = Family::BOTH.map(|family| lab.lease(&gateway, family)).into();
    let [forced, lost, ending] = ["forced", "lost", "ending"].map(|name| lab.client(2, name));
    // Selected while it runs.
    let late = lab.plain(2, "late");
    lab.select(&late, true);
    let all = [&forced, &lost, &ending, &late];
    for pod in all {
        eventually("the gateway is used", || leaves_by(&lab, pod, &gateway));
    }
    let stop = AtomicBool::new(false);
    let capture = lab.capture().unwrap();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        all.iter().for_each(|pod| drop(scope.spawn(|| murmur(pod, &stop))));
        capture.restart();
        let updates = || agents[1].state().unwrap().updates.times;
        let before = updates();
        [&forced, &late].iter().for_each(|pod| lab.remove_pod_object(&pod.name.to_string()).unwrap());
        eventually("the agent heard of it", || updates() > before);
        [&forced, &late].iter().for_each(|pod| shows_only(&capture, pod, &leases, "without its object"));
        drop(agents.pop());
        agents.push(lab.agent(2));
        lab.client(2, "another");
        [&forced, &late].iter().for_each(|pod| shows_only(&capture, pod, &leases, "by a new agent"));

        // The list's plugins go last to first: ours, and then libcni does not find the primary.
        let mut command = lab.cnitool_command("del", &ending).unwrap();
        let folder = Path::new(env!("CARGO_BIN_EXE_egret")).parent().unwrap();
        let output = command.env("CNI_PATH", folder).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("failed to find plugin"), "{said}");
        is_silent(&capture, &ending, "after its DEL");

        let plan = || fs::read_to_string(memory(2).dir().join("plan.json")).unwrap();
        for pod in [&lost, &late] {
            capture.restart();
            lab.lose_pod(pod).unwrap();
            eventually("it is forgotten", || {
                pod.addresses.iter().all(|ip| !plan().contains(&format!("\"{ip}\"")))
            });
            let seen = capture.sources_of(pod);
            assert!(seen.keys().all(|ip| leases.contains(ip)), "{}: {seen:?}", pod.name);
            is_silent(&capture, pod, "without its namespace's path");
        }
    });
}

/// A client moves to another gateway and back, a pod becomes a client and is let go, and each time the agent dies half-way. What left
/// before the change was begun may leave as long as nobody is there to go on.
#[test]
fn an_agent_that_dies_in_a_change_leaves_clients_bound_or_held_until_the_next_one() {
    let lab = lab(2);
    let agents = lab.agents();
    let (red, blue) = (lab.gateway(1, "red"), lab.gateway_of(2, "blue", "blue"));
    let leases: Vec<IpAddr> = [&red, &blue]
        .iter()
        .flat_map(|gateway| Family::BOTH.map(|family| lab.lease(gateway, family)))
        .collect();
    let client = lab.client(2, "moves");
    let joins = lab.plain(2, "joins");
    eventually("the gateway is used", || leaves_by(&lab, &client, &red));
    let [here, there] = <[Agent; 2]>::try_from(agents).ok().unwrap();
    let _here = here;
    drop(there);
    let to = |code: &str| {
        let selector = format!("egress-code == '{code}'");
        let words = [(SELECTS_RED[0].0, selector.as_str()), SELECTS_RED[1]];
        lab.pod_object(&client.name.to_string(), &[], &words, 2).unwrap();
    };
    let stop = AtomicBool::new(false);
    let capture = lab.capture().unwrap();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        [&client, &joins].iter().for_each(|pod| drop(scope.spawn(|| murmur(pod, &stop))));
        for point in
            ["update.after-intention", "update.while-held", "update.after-gateways", "update.after-kernel"]
        {
            capture.restart();
            to("blue");
            lab.select(&joins, true);
            assert!(!lab.start_with(2, &[("EGRET_FAULT", point)]).end(), "{point}");
            let agent = lab.agent(2);
            eventually("the next one goes on", || {
                leaves_by(&lab, &client, &blue) && leaves_by(&lab, &joins, &red)
            });
            let seen = capture.sources_of(&client);
            assert!(seen.keys().all(|ip| leases.contains(ip)), "{point}: {seen:?}");
            capture.restart();
            shows_only(&capture, &joins, &leases, point);
            to("red");
            lab.select(&joins, false);
            eventually("and back", || leaves_by(&lab, &client, &red) && !leaves_by(&lab, &joins, &red));
            let seen = capture.sources_of(&client);
            assert!(seen.keys().all(|ip| leases.contains(ip)), "{point}, back: {seen:?}");
            drop(agent);
        }
    });
}

/// `nft` fails twice, so that a look at the kernel does not help: whatever the calls of a crowd share is undone, and each of them is
/// carried out by itself.
#[test]
fn a_crowd_whose_change_fails_is_carried_out_one_by_one() {
    let lab = lab(1);
    let folder = std::env::temp_dir().join(format!("egret-nft-{}", std::process::id()));
    let (program, fails) = (folder.join("nft"), folder.join("fails"));
    fs::create_dir_all(&folder).unwrap();
    let path = std::env::var("PATH").unwrap();
    let real = lab.node(1).sh("PATH=$PATH:/usr/sbin:/sbin; command -v nft").unwrap();
    let script = format!(
        "#!/bin/sh\nif rm {0}1 2>/dev/null || rm {0}2 2>/dev/null; then echo refused >&2; exit 1; fi\nexec {1} \"$@\"\n",
        fails.display(),
        real.trim()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let agent = lab.agent_with(1, &[("PATH", &format!("{}:{path}", folder.display()))]);
    let gateway = lab.gateway(1, "red");
    let names: Vec<String> = (0..4).map(|n| format!("shop/c{n}")).collect();
    names.iter().for_each(|name| lab.pod_object(name, &[], &SELECTS_RED, 1).unwrap());
    let failures = ["1", "2"].map(|n| PathBuf::from(format!("{}{n}", fails.display())));
    failures.iter().for_each(|failure| fs::write(failure, "").unwrap());
    // Nobody's binding is there yet, so all of them need `nft`.
    let pods = at_once(&agent, names, |name| lab.add_pod(1, &name).unwrap());
    assert!(!failures[1].exists() && agent.log().contains("carried out one by one"), "{}", agent.log());
    pods.iter().for_each(|pod| assert!(leaves_by(&lab, pod, &gateway), "{}", pod.name));
    pods.iter().for_each(|pod| lab.check_pod(pod).unwrap());
    eventually("nothing differs", || lab.differs(1).is_empty());
    let _ = fs::remove_dir_all(folder);
}
