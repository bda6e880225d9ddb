//! Every kind of change reaches running pods, under traffic, and touches nothing but what it is about.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Answer, LINES_PORT, Masquerade, Pod, Topology};

use crate::kernel::Stop;
use crate::lab::{Agent, Lab, POLICY, SELECTS_RED, eventually, leaves_by, outside};
use crate::witness::Witness;

/// New and old flows of both families, all the time.
fn chatter(pod: &Pod, stop: &AtomicBool) {
    let mut pod = pod.clone();
    pod.patience = Duration::from_millis(50);
    let mut old = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for to in outside() {
            let _ = (pod.udp(to), pod.tcp(to), pod.ping(to));
            if old.len() < 8 {
                old.extend(pod.udp_flow(to).into_iter().chain(pod.tcp_flow(to)));
            }
        }
        old.retain_mut(|flow| {
            flow.set_patience(Duration::from_millis(50));
            matches!(flow.ask(), Answer::From(_) | Answer::Silent)
        });
    }
}

/// What a change shall lead to.
enum Then<'a> {
    By(&'a Pod),
    /// IPv4 and IPv6 each by their own.
    Split(&'a Pod, &'a Pod),
    Held,
}

fn is_so(lab: &Lab, pod: &Pod, then: &Then<'_>) -> bool {
    let mut pod = pod.clone();
    pod.patience = Duration::from_millis(20);
    let seen = outside().map(|to| pod.udp(to).ok());
    let leases = |pods: [&Pod; 2]| {
        let [v4, v6] = pods;
        [Some(lab.lease(v4, Family::V4)), Some(lab.lease(v6, Family::V6))]
    };
    match then {
        Then::By(gateway) => seen == leases([gateway, gateway]),
        Then::Split(v4, v6) => seen == leases([v4, v6]),
        Then::Held => seen == [None, None],
    }
}

fn policy(rules: &[(&str, &str)]) -> String {
    let rule = |(cidr, code): &(&str, &str)| {
        format!(
            "  - destination: {{cidr: '{cidr}'}}\n    gateway: {{selector: \"egress-code == '{code}'\", \
             namespaceSelector: \"projectcalico.org/name == 'gw'\"}}\n"
        )
    };
    let rules: String = rules.iter().map(rule).collect();
    format!(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {{name: way}}\nspec:\n  rules:\n{rules}"
    )
}

#[test]
fn whatever_is_written_reaches_a_selected_pod_and_none_of_its_packets_shows_another_address() {
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let red = lab.gateway(1, "red");
    let blue = lab.gateway_of(2, "blue", "blue");
    let client = lab.client(2, "cart");
    eventually("the gateway is used", || leaves_by(&lab, &client, &red));
    let pod = |labels: &[(&str, &str)], words: &[(&str, &str)]| {
        lab.pod_object("shop/cart", labels, words, 2).unwrap();
    };
    let write = |rules: &[(&str, &str)]| drop(lab.object(&policy(rules)).unwrap());
    let blue_selector = [("egress.projectcalico.org/selector", "egress-code == 'blue'"), SELECTS_RED[1]];
    let enforced = "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: first}\nspec:\n  enforced: true\n  \
                    selectors: [{selector: \"app == 'cart'\"}]\n  rules:\n  - gateway: {selector: \"egress-code == 'blue'\", \
                    namespaceSelector: \"projectcalico.org/name == 'gw'\"}\n";
    let changes: [(&str, &dyn Fn(), Then<'_>); 13] = [
        ("the annotation names another gateway", &|| pod(&[], &blue_selector), Then::By(&blue)),
        ("the annotation names a policy that does not exist", &|| pod(&[], &[POLICY]), Then::Held),
        ("the policy comes", &|| write(&[("0.0.0.0/0", "red"), ("::/0", "red")]), Then::By(&red)),
        (
            "one family goes elsewhere",
            &|| write(&[("0.0.0.0/0", "red"), ("::/0", "blue")]),
            Then::Split(&red, &blue),
        ),
        (
            "a longer prefix",
            &|| write(&[("0.0.0.0/0", "red"), ("198.51.100.0/24", "blue"), ("::/0", "blue")]),
            Then::By(&blue),
        ),
        (
            "the policy is removed",
            &|| lab.remove_object("EgressGatewayPolicy", Some("none"), "way").unwrap(),
            Then::Held,
        ),
        ("the pod selects again", &|| pod(&[], &SELECTS_RED), Then::By(&red)),
        (
            "the gateway loses its label",
            &|| lab.pod_object("gw/red", &[], &crate::lab::WANTS_LEASES, 1).unwrap(),
            Then::Held,
        ),
        (
            "and has it again",
            &|| lab.pod_object("gw/red", &[("egress-code", "red")], &crate::lab::WANTS_LEASES, 1).unwrap(),
            Then::By(&red),
        ),
        ("an enforced policy for a label", &|| drop(lab.object(enforced).unwrap()), Then::By(&red)),
        ("the pod has the label", &|| pod(&[("app", "cart")], &SELECTS_RED), Then::By(&blue)),
        (
            "the pool lets clients of other namespaces in only",
            &|| lab.pools("projectcalico.org/name == 'else'"),
            Then::Held,
        ),
        ("the pool lets all in", &|| lab.pools("all()"), Then::By(&blue)),
    ];
    let capture = lab.capture().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| chatter(&client, &stop));
        for (what, change, then) in &changes {
            change();
            let took = eventually(what, || is_so(&lab, &client, then));
            println!(
                "{what}: in force and seen after {took:?}, said {} ms",
                agents[1].state().unwrap().updates.last_millis
            );
        }
    });
    capture.assert_clean(&[&client]);
    for agent in &agents {
        assert!(agent.state().unwrap().repairs.is_empty(), "{:?}", agent.state().unwrap().repairs);
    }
}

#[test]
fn ranges_of_the_cluster_are_taken_up_live_and_given_up_again_without_a_leak() {
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let red = lab.gateway(1, "red");
    let client = lab.client(2, "cart");
    eventually("the gateway is used", || leaves_by(&lab, &client, &red));
    lab.object(
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: near}\n\
         spec: {cidrs: ['198.51.100.0/24', '2001:db8:ff::/64']}\n",
    )
    .unwrap();
    let near = outside();
    eventually("inside now", || {
        near.iter().all(|to| client.udp(*to).is_ok_and(|ip| ip != lab.lease(&red, Family::of(*to))))
    });
    let stop = AtomicBool::new(false);
    let capture = lab.capture().unwrap();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| chatter(&client, &stop));
        std::thread::sleep(Duration::from_millis(200));
        in_force(&agents[1], || lab.remove_object("ServiceCIDR", None, "near").unwrap());
        capture.restart();
        std::thread::sleep(Duration::from_millis(400));
    });
    // What was pinned to nothing while it was inside stays as it began; new flows have the lease.
    eventually("the gateway is used again", || leaves_by(&lab, &client, &red));
    let lease = outside().map(|to| lab.lease(&red, Family::of(to)));
    assert!(lease.iter().all(|ip| capture.sources_of(&client).contains_key(ip)));
}

#[test]
fn a_pod_that_is_bound_or_let_go_loses_its_own_outside_entries_and_nobody_else_any() {
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let red = lab.gateway(1, "red");
    let (pod, other, neighbour) = (lab.plain(2, "cart"), lab.plain(2, "other"), lab.plain(1, "inside"));
    let selected = lab.client(2, "selected");
    eventually("the gateway is used", || leaves_by(&lab, &selected, &red));
    let _service = neighbour.serve().unwrap();
    let to_neighbour = |pod: &Pod| {
        let flows =
            Family::BOTH.map(|f| pod.tcp_flow_to(SocketAddr::new(neighbour.address(f).unwrap(), LINES_PORT)));
        flows.map(Result::unwrap)
    };
    for bind in [true, false] {
        let outsides = |pod: &Pod| outside().map(|to| pod.tcp_flow(to).unwrap());
        let (mut own, mut own_inside) = (outsides(&pod), to_neighbour(&pod));
        let mut foreign: Vec<_> = [&other, &selected]
            .iter()
            .flat_map(|pod| outsides(pod).into_iter().chain(to_neighbour(pod)))
            .collect();
        let entries = |pod: &Pod| -> Vec<String> {
            let listed = |ip: std::net::IpAddr| {
                let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
                lab.node(2)
                    .sh(&format!("conntrack -L -f {family} -p tcp -s {ip} 2>/dev/null || true"))
                    .unwrap()
            };
            pod.addresses.iter().flat_map(|ip| listed(*ip).lines().map(entry).collect::<Vec<_>>()).collect()
        };
        let is_outside = |e: &String| outside().iter().any(|to| e.contains(&format!("dst={to} ")));
        let live = |e: &String| e.contains("ESTABLISHED");
        let before = [&other, &selected].map(|p| entries(p).into_iter().filter(live).collect::<Vec<_>>());
        assert!(entries(&pod).iter().any(is_outside));
        in_force(&agents[1], || lab.select(&pod, bind));
        eventually("it leaves accordingly", || leaves_by(&lab, &pod, &red) == bind);
        own.iter_mut().for_each(|flow| flow.set_patience(Duration::from_millis(200)));
        eventually("its own outside flows have ended", || {
            own.iter_mut().all(|flow| !matches!(flow.ask(), Answer::From(_)))
        });
        assert!(
            own_inside.iter_mut().all(|flow| matches!(flow.ask(), Answer::From(_))),
            "inside flows go on"
        );
        assert!(foreign.iter_mut().all(|flow| matches!(flow.ask(), Answer::From(_))), "others' flows go on");
        let after = [&other, &selected].map(&entries);
        for (before, after) in before.iter().zip(&after) {
            assert!(before.iter().all(|e| after.contains(e)), "{before:#?}\n{after:#?}");
        }
    }
}

/// An entry without what changes by itself: its number of users is more than one while a packet is on its way.
fn entry(line: &str) -> String {
    line.split_whitespace()
        .filter(|word| !word.chars().all(|c| c.is_ascii_digit()) && !word.starts_with("use="))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_pod_moved_between_gateways_loses_only_the_flows_on_the_one_it_may_not_use_any_more() {
    let lab = Lab::raise(2);
    let _agents = lab.agents();
    let (one, two) = (lab.gateway(1, "one"), lab.gateway(2, "two"));
    let client = lab.client(2, "cart");
    for (gateway, to) in [&one, &two].into_iter().flat_map(|gateway| outside().map(|to| (gateway, to))) {
        let lease = lab.lease(gateway, Family::of(to));
        eventually("both gateways are used", || client.udp(to).is_ok_and(|ip| ip == lease));
    }
    let mut flows = Vec::new();
    for to in outside() {
        let lease = |gateway: &Pod| lab.lease(gateway, Family::of(to));
        for gateway in [&one, &two] {
            eventually("a flow by this gateway", || {
                let mut flow = client.tcp_flow(to).unwrap();
                let by = flow.ask() == Answer::From(lease(gateway));
                if by {
                    flows.push((flow, gateway.name.clone()));
                }
                by
            });
        }
    }
    let capture = lab.capture().unwrap();
    lab.pod_object("gw/one", &[], &crate::lab::WANTS_LEASES, 1).unwrap();
    eventually("the other is left", || (0..8).all(|_| leaves_by(&lab, &client, &two)));
    for (flow, gateway) in &mut flows {
        if *gateway == two.name {
            let answer = flow.ask();
            assert!(matches!(answer, Answer::From(_)), "a flow by {gateway}: {answer:?}");
        } else {
            eventually("its flows end", || !matches!(flow.ask(), Answer::From(_)));
        }
    }
    capture.assert_clean(&[&client]);
}

#[test]
fn one_annotation_on_a_node_of_many_pods_touches_nothing_of_the_others() {
    let lab = Lab::with(Topology { nodes: 1, masquerade: Masquerade::None, ..Topology::default() });
    let agents = lab.agents();
    let _gateway = lab.gateway(1, "red");
    let _bound = lab.client(1, "bound");
    let pods: Vec<Pod> = (0..12).map(|n| lab.plain(1, &format!("p{n}"))).collect();
    let quiet = || eventually("the agent has nothing to do", || settled(&agents[0]));
    let chains = || -> BTreeSet<String> {
        let listed = lab.node(1).sh("nft list chains inet").unwrap();
        let names = listed.lines().filter_map(|line| line.trim().strip_prefix("chain "));
        names.map(|name| format!("egret {} ", name.trim_end_matches(" {"))).collect()
    };
    for selected in [true, false] {
        quiet();
        let (witness, before, repairs) =
            (Witness::on(&lab.node(1)), chains(), agents[0].state().unwrap().repairs);
        let took = in_force(&agents[0], || lab.select(&pods[5], selected));
        quiet();
        let own: Vec<String> = pods[5].addresses.iter().map(|ip| format!("{{ {ip} :")).collect();
        let is_told = |seen: &[String]| own.iter().all(|ip| seen.iter().any(|line| line.contains(ip)));
        eventually("the kernel has told of the pod's own entries", || is_told(&witness.seen()));
        let (seen, after) = (witness.seen(), chains());
        println!("selected {selected}: {took:?}, {} lines", seen.len());
        // The order in which it is held has a chain of its own, which is gone again, and the chain of pods let go comes once.
        let lasting = |line: &str| before.iter().any(|chain| line.contains(chain.as_str()));
        let foreign = |line: &&String| lasting(line) && !own.iter().any(|ip| line.contains(ip));
        let foreign: Vec<_> = seen.iter().filter(foreign).collect();
        assert!(foreign.is_empty() && seen.iter().all(|line| line.contains("inet egret")), "{foreign:#?}");
        assert!(before.is_subset(&after) && after.len() <= before.len() + 1, "{before:?} {after:?}");
        assert_eq!(agents[0].state().unwrap().repairs, repairs);
    }
}

/// Makes a change and waits until the agent says that the kernel follows.
fn in_force(agent: &Agent, change: impl FnOnce()) -> Duration {
    let changed = || agent.state().unwrap().updates.changed;
    let before = changed();
    change();
    eventually("the change is in force", || changed() > before)
}

/// Whether an agent has not looked at anything for a moment.
pub(crate) fn settled(agent: &Agent) -> bool {
    let times = agent.state().unwrap().updates.times;
    std::thread::sleep(Duration::from_millis(150));
    agent.state().unwrap().updates.times == times
}

/// Given a pod that nothing selects and that got a further address since its ADD, it is selected: what it sends from there leaves by its
/// gateway too, and nothing has to be named.
#[test]
fn a_further_address_of_a_running_pod_is_bound_when_it_is_selected() {
    let lab = Lab::raise(1);
    let _agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let plain = |words: &[(&str, &str)]| lab.pod_object("plain/late", &[], words, 1).unwrap();
    plain(&[]);
    let pod = lab.add_pod(1, "plain/late").unwrap();
    for own in &pod.addresses {
        let (flag, length) = if own.is_ipv4() { ("-4", 24) } else { ("-6", 64) };
        let further = own.to_string() + if own.is_ipv4() { "0" } else { "0f" };
        let place = pod.place();
        place.sh(&format!("ip addr add {further}/{length} dev eth0 nodad")).unwrap();
        let way = place.sh(&format!("ip {flag} route show default")).unwrap();
        let via = way.split_whitespace().nth(2).unwrap().to_owned();
        place.sh(&format!("ip {flag} route replace default via {via} dev eth0 src {further}")).unwrap();
    }
    assert!(!leaves_by(&lab, &pod, &gateway), "nothing selects it");
    plain(&SELECTS_RED);
    eventually("its further addresses are bound", || leaves_by(&lab, &pod, &gateway));
    lab.check_pod(&pod).unwrap();
}
