//! A mirror of the API server: the same view as files give, soon, and nothing that a node does not need.

use std::sync::Arc;
use std::time::{Duration, Instant};

use egret::api;
use egret::config::Config;
use egret::egress::model::{PodName, View};
use egret::kube::{Client, Following, Mirror, Reach, Watched};
use egret::store::objects::Objects;
use egret::testbed::repository;

use crate::server::kubectl;
use crate::world::{alone, client_of, forget};

const WORLD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: shop}}
---
{apiVersion: v1, kind: Node, metadata: {name: here}}
---
{apiVersion: v1, kind: Node, metadata: {name: there}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop, labels: {app: cart}},
 spec: {nodeName: here, containers: [{name: c, image: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: far, namespace: shop}, spec: {nodeName: there, containers: [{name: c, image: x}]}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: shop-pool}, spec: {cidr: 10.77.0.0/28, gatewayNamespaces: all()}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressGatewayPolicy, metadata: {name: shop-policy}, spec: {rules: [{gateway: {selector: has(gw)}}]}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressEndpoint, metadata: {name: gw1}, spec: {pod: shop/gw, attachment: net/c/eth0, node: there,
 underlay: [172.31.0.2], vni: 4098, mac: '02:67:0a:4d:00:00', addresses: [{ip: 10.77.0.0, pool: shop-pool}], state: ready, generation: 1}}
";

/// Follows everything that node `here` needs, and adopts nothing.
pub(crate) fn follow_here(client: &Arc<Client>) -> Following {
    Following::with(client, Reach::Node("here".to_owned()), |_| false).unwrap()
}

/// How long anything may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

fn view(mirror: &Mirror) -> View {
    let objects = Objects::of(mirror.readings()).unwrap();
    assert_eq!(objects.problems(), []);
    objects.view(&Config::default(), mirror.endpoints())
}

/// Waits until the mirror says what files with the same objects say, the gateway of [`WORLD`] included; what that is. A list may be older
/// than what was just written.
fn agreed(following: &Following) -> View {
    let started = Instant::now();
    loop {
        let mut expected = view_of_files();
        let (seen, problems) = {
            let mirror = following.mirror();
            let objects = Objects::of(mirror.readings()).unwrap();
            (objects.view(&Config::default(), mirror.endpoints()), objects.problems())
        };
        expected.endpoints.clone_from(&seen.endpoints);
        for namespace in expected.namespaces.values_mut() {
            // What kubectl writes for itself is not kept: it is as long as the object, and nobody reads it.
            namespace.annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        let gateway = seen.endpoints.iter().any(|endpoint| endpoint.pod == PodName::new("shop", "gw"));
        if following.mirror().is_synced() && gateway && problems.is_empty() && seen == expected {
            return seen;
        }
        if started.elapsed() > PATIENCE {
            assert_eq!(problems, []);
            assert_eq!(seen, expected);
            panic!("not all is heard of: {:?}, {:?}", following.mirror().lost(), seen.endpoints);
        }
        following.changed(Duration::from_millis(500));
    }
}

/// What files with the same objects say.
fn view_of_files() -> View {
    let mut readings = Vec::new();
    for kind in [
        "namespaces",
        "nodes",
        "pods -A --field-selector=spec.nodeName=here",
        "servicecidrs",
        "endpointslices -n default --field-selector=metadata.name=kubernetes",
        "epool",
        "egpol",
    ] {
        let arguments: Vec<&str> = ["get", "-o", "json"].into_iter().chain(kind.split(' ')).collect();
        let text = kubectl(&arguments, "");
        readings.push((format!("{kind}.json"), api::read("x.json", text.as_bytes())));
    }
    Objects::of(readings).unwrap().view(&Config::default(), Vec::new())
}

/// Waits until the mirror says so; how long it took.
pub(crate) fn until(following: &Following, what: impl Fn(&Mirror) -> bool) -> Duration {
    let started = Instant::now();
    while !what(&following.mirror()) {
        assert!(started.elapsed() < PATIENCE, "it never came: {:?}", following.mirror().lost());
        following.changed(Duration::from_millis(500));
    }
    started.elapsed()
}

#[test]
fn a_node_sees_what_files_would_say_and_hears_of_changes_that_matter() {
    let _alone = alone();
    let client = Arc::new(client_of("admin"));
    forget(&client);
    kubectl(&["apply", "--server-side", "-f", "-"], WORLD);
    let following = follow_here(&client);
    println!("synced in {:?}", until(&following, Mirror::is_synced));
    let seen = agreed(&following);
    assert_eq!(seen.endpoints.len(), 1);
    let cart = PodName { namespace: "shop".to_owned(), name: "cart".to_owned() };
    assert_eq!(seen.pods.keys().collect::<Vec<_>>(), [&cart], "of this node, and of no other");

    // The status of a pool is nothing that a node acts on; neither is a pod elsewhere.
    while following.changed(Duration::from_millis(300)) {}
    for arguments in [
        &[
            "patch",
            "epool",
            "shop-pool",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status": {"leased": 1}}"#,
        ][..],
        &["annotate", "pod", "-n", "shop", "far", "a=b"],
    ] {
        kubectl(arguments, "");
    }
    assert!(!following.changed(Duration::from_secs(1)), "nothing of this concerns the node");

    let path = "/api/v1/namespaces/shop";
    let mut times = Vec::new();
    for n in 0..20 {
        let mut object = client.get(path).unwrap();
        object["metadata"]["annotations"]["egress.projectcalico.org/selector"] = format!("n == '{n}'").into();
        let started = Instant::now();
        client.replace(path, &object).unwrap();
        let wanted = format!("n == '{n}'");
        until(&following, |mirror| {
            view(mirror).namespaces["shop"].annotations.values().any(|value| *value == wanted)
        });
        times.push(started.elapsed());
    }
    times.sort();
    println!("an annotation, from the request to the view: median {:?}, slowest {:?}", times[10], times[19]);

    kubectl(&["delete", "egpol", "shop-policy"], "");
    until(&following, |mirror| view(mirror).policies.is_empty());
}

#[test]
fn who_may_see_nothing_knows_why_and_is_never_synced() {
    let _alone = alone();
    let client = Arc::new(client_of("nobody"));
    let following = follow_here(&client);
    until(&following, |mirror| mirror.lost().len() == 10);
    let mirror = following.mirror();
    assert!(!mirror.is_synced());
    let (_, why) = &mirror.lost()[0];
    assert!(why.contains("cannot list resource \"namespaces\"") && why.contains("403"), "{why}");
}

#[test]
fn objects_that_go_with_their_definition_stay_in_force_and_those_that_are_deleted_for_themselves_go() {
    let _alone = alone();
    let client = Arc::new(client_of("admin"));
    let policy = |name: &str| {
        format!(
            "{{apiVersion: egret.dev/v1alpha1, kind: EgressGatewayPolicy, metadata: {{name: {name}}}, \
             spec: {{rules: [{{gateway: {{selector: has(gw)}}}}]}}}}"
        )
    };
    kubectl(&["delete", "egpol", "--all"], "");
    for name in ["outlives-a", "outlives-b", "goes"] {
        kubectl(&["apply", "--server-side", "-f", "-"], &policy(name));
    }
    let names = |mirror: &Mirror| -> Vec<String> {
        let all = mirror.objects(Watched::Policies).map(|(name, _)| name.to_owned());
        all.filter(|name| name.starts_with("outlives") || name == "goes").collect()
    };
    let both = ["outlives-a", "outlives-b"];
    let lost = |mirror: &Mirror, part: &str| mirror.lost().iter().any(|(_, why)| why.contains(part));
    let following = follow_here(&client);
    until(&following, |mirror| mirror.is_synced() && names(mirror).len() == 3);
    kubectl(&["delete", "egpol", "goes"], "");
    until(&following, |mirror| names(mirror) == both);

    kubectl(&["delete", "crd", "egressgatewaypolicies.egret.dev"], "");
    until(&following, |mirror| lost(mirror, "egressgatewaypolicies"));
    assert_eq!(names(&following.mirror()), both);
    // Who starts now knows as little as the server.
    let late = follow_here(&client);
    until(&late, |mirror| lost(mirror, "404"));
    assert_eq!(
        late.mirror().generation(Watched::Policies),
        0,
        "nothing is told of the kind, so nothing goes"
    );

    kubectl(&["apply", "--server-side", "-f", "-"], &egret_crds());
    kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=120s"], "");
    until(&following, |mirror| lost(mirror, "outlives-a, outlives-b stay in force"));
    assert_eq!(names(&following.mirror()), both);
    kubectl(&["apply", "--server-side", "-f", "-"], &policy("outlives-a"));
    until(&following, |mirror| lost(mirror, "made anew, and outlives-b stay in force"));
    kubectl(&["apply", "--server-side", "-f", "-"], &policy("outlives-b"));
    until(&following, |mirror| mirror.lost().is_empty());
    for name in both {
        kubectl(&["delete", "egpol", name], "");
    }
    until(&following, |mirror| names(mirror).is_empty());
}

#[test]
fn a_role_that_is_taken_away_removes_nothing_and_the_missing_line_is_said() {
    let _alone = alone();
    forget(&client_of("admin"));
    kubectl(&["apply", "-f", "-"], &std::fs::read_to_string(repository().join("deploy/rbac.yaml")).unwrap());
    // As the other stories call it; one is there or not.
    kubectl(&["delete", "clusterrolebinding", "lab-agent", "--ignore-not-found"], "");
    kubectl(&["create", "clusterrolebinding", "lab-agent", "--clusterrole=egret-agent", "--user=agent"], "");
    kubectl(&["apply", "--server-side", "-f", "-"], WORLD);
    let client = Arc::new(client_of("agent"));
    let following = follow_here(&client);
    let known = agreed(&following);
    kubectl(&["delete", "clusterrolebinding", "lab-agent"], "");
    let began = Instant::now();
    while client.get("/api/v1/namespaces").is_ok() {
        assert!(began.elapsed() < PATIENCE, "the role is still in force");
        std::thread::sleep(Duration::from_millis(50));
    }
    // A watch that is open goes on; whoever begins one is refused.
    let again = follow_here(&client);
    let parts =
        ["cannot list resource", "apiGroups [egret.dev], resources [egresspools] needs the verb list"];
    until(&again, |mirror| {
        let lost = mirror.lost();
        parts.iter().all(|part| lost.iter().any(|(_, why)| why.contains(part)))
    });
    assert_eq!(view(&following.mirror()), known);
}

pub(crate) fn egret_crds() -> String {
    let crds = std::process::Command::new(env!("CARGO_BIN_EXE_egret")).arg("crds").output().unwrap();
    String::from_utf8(crds.stdout).unwrap()
}

/// An agent whose last gateway left: whoever follows no more leaves no thread and no watch behind.
#[test]
fn who_follows_no_more_asks_no_more() {
    let _alone = alone();
    let client = Arc::new(client_of("admin"));
    forget(&client);
    let following = Following::with(&client, Reach::Books, |_| false).unwrap();
    until(&following, Mirror::is_synced);
    assert!(Arc::strong_count(&client) > 1, "its thread has the client, too");
    drop(following);
    let block = r#"{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: p.v4-10-0-0-0-31},
        spec: {pool: p, cidr: 10.0.0.0/31, sequence: 0, allocations: {}}}"#;
    let began = Instant::now();
    while Arc::strong_count(&client) > 1 {
        assert!(began.elapsed() < PATIENCE, "somebody follows it still");
        kubectl(&["create", "-f", "-"], block);
        forget(&client);
    }
}
