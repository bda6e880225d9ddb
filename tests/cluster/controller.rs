//! Two controllers on a real API server, as the service account that `deploy/controller-rbac.yaml` makes: one works, the other takes
//! over; what they say is read by kubectl; leases of a node that is gone come back, those of a silent one do not.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use egret::kube::Client;
use egret::kube::lease::{self, LeaseSpec};
use egret::testbed::{repository, within};
use serde_json::Value;

use crate::proxy::Proxy;
use crate::server::{kubeconfig_of, kubectl};
use crate::world::{alone, client_of, forget};

const WORLD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: ctl}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: ctl}}
---
{apiVersion: v1, kind: Node, metadata: {name: k1}, spec: {taints: [{key: spot, effect: NoSchedule}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: k2}, spec: {taints: [{key: spot, effect: NoSchedule}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gw, namespace: ctl, labels: {role: gw}}, spec: {nodeName: k2, containers: [{name: c, image: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: ctl, labels: {app: ctl}}, spec: {nodeName: k1, containers: [{name: c, image: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: two, namespace: ctl, labels: {app: ctl}}, spec: {nodeName: k2, containers: [{name: c, image: x}]}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: ctl}, spec: {cidr: 10.88.0.0/30, gatewayNamespaces: all(), cooldownSeconds: 600}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressGatewayPolicy, metadata: {name: ctl}, spec: {selectors: [{selector: \"app == 'ctl'\"}],
 rules: [{gateway: {selector: \"role == 'gw'\"}}], otherFamily: Ignore}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: ctl.v4-10-88-0-0-31}, spec: {pool: ctl, cidr: 10.88.0.0/31, affinity: k2,
 sequence: 3, allocations: {10.88.0.0: {owner: 'pod:u', sequence: 1, since: 5, holder: {network: net, container: c, ifname: eth0, node: k2}},
 10.88.0.1: {owner: 'ordinal:ctl/lost/0', sequence: 3, since: 5}}}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: ctl.v4-10-88-0-2-31}, spec: {pool: ctl, cidr: 10.88.0.2/31, affinity: k1,
 sequence: 1, allocations: {10.88.0.2: {owner: 'pod:v', sequence: 1, since: 5, holder: {network: net, container: d, ifname: eth0, node: k1}}}}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressEndpoint, metadata: {name: ctl}, spec: {pod: ctl/gw, attachment: net/c/eth0, node: k2,
 underlay: [172.31.9.2], vni: 4099, mac: '02:67:0a:58:00:00', addresses: [{ip: 10.88.0.0, pool: ctl}], state: ready, generation: 1,
 labels: {role: gw}}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressNode, metadata: {name: node-77}, spec: {node: k2, number: 77, wire: 172.31.9.2}}
";

const RANGE: &str =
    "{apiVersion: egret.dev/v1alpha1, kind: EgressRange, metadata: {name: ctl}, spec: {cidrs: [CIDR]}}";

const POLICY: &str = "/apis/egret.dev/v1alpha1/egressgatewaypolicies/ctl";
const POOL: &str = "/apis/egret.dev/v1alpha1/egresspools/ctl";
const BLOCK: &str = "/apis/egret.dev/v1alpha1/egressblocks/ctl.v4-10-88-0-0-31";

/// How long anything may take on a machine with other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A controller, until it is dropped.
pub(crate) struct Controller(Child);

impl Controller {
    fn start(kubeconfig: &str) -> Controller {
        Controller::with(Path::new(kubeconfig), &[])
    }

    pub(crate) fn with(kubeconfig: &Path, more: &[&str]) -> Controller {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
        command.arg("controller").arg("--kubeconfig").arg(kubeconfig);
        command.args(["--silence", "6", "--reclaim-after", "3"]).args(more);
        // Several run in one network.
        if !more.contains(&"--listen") {
            command.args(["--listen", "off"]);
        }
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        Controller(command.spawn().unwrap())
    }

    /// Waits for its end.
    fn ends(&mut self) {
        let ended = || self.0.try_wait().unwrap().is_some();
        assert!(within(PATIENCE, Duration::from_millis(20), ended).is_some(), "it does not end");
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if thread::panicking() {
            let mut said = String::new();
            let _ = std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut said);
            println!("a controller said:\n{said}");
        }
    }
}

/// Signs of life of an agent, as long as they are wanted.
pub(crate) struct Beats(Arc<AtomicBool>);

impl Beats {
    pub(crate) fn of(node: &'static str) -> Beats {
        let wanted = Arc::new(AtomicBool::new(true));
        let go_on = wanted.clone();
        thread::spawn(move || {
            let client = client_of("admin");
            for beat in 0.. {
                if !go_on.load(Ordering::Relaxed) {
                    return;
                }
                let name = lease::beat_of(node);
                let seen = lease::read(&client, &name).unwrap().map(|found| found.version);
                let spec = LeaseSpec {
                    holder_identity: node.to_owned(),
                    lease_duration_seconds: 30,
                    // What the clock says is nobody's concern.
                    renew_time: Some(lease::micro_time(Duration::from_secs(beat))),
                    ..LeaseSpec::default()
                };
                let _ = lease::write(&client, &name, &spec, seen.as_deref());
                thread::sleep(Duration::from_millis(500));
            }
        });
        Beats(wanted)
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A kubeconfig of the controller's own account.
pub(crate) fn kubeconfig() -> String {
    for file in ["deploy/rbac.yaml", "deploy/controller-rbac.yaml"] {
        kubectl(&["apply", "-f", "-"], &fs::read_to_string(repository().join(file)).unwrap());
    }
    let file = kubeconfig_of("egret-controller", "egret-system");
    file.to_str().unwrap().to_owned()
}

/// The version of an object that nobody has written for a second.
fn version(client: &Client, path: &str) -> Value {
    let read = || client.get(path).unwrap()["metadata"]["resourceVersion"].clone();
    let mut version = read();
    let unchanged = || {
        thread::sleep(Duration::from_secs(1));
        read() == std::mem::replace(&mut version, read())
    };
    assert!(within(PATIENCE, Duration::ZERO, unchanged).is_some(), "{path} is written again and again");
    version
}

/// Waits until an object is so; how long it took.
pub(crate) fn until(client: &Client, path: &str, what: &str, is: impl Fn(&Value) -> bool) -> Duration {
    let started = Instant::now();
    loop {
        let now = client.get(path).unwrap_or_default();
        if is(&now) {
            println!("{what} after {:?}", started.elapsed());
            return started.elapsed();
        }
        assert!(started.elapsed() < PATIENCE, "never {what}: {now:#}");
        thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn holder(client: &Client) -> String {
    lease::read(client, "egret-controller")
        .unwrap()
        .unwrap_or_else(|| panic!("no Lease"))
        .spec
        .holder_identity
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

pub(crate) fn taints(node: &Value) -> Vec<&str> {
    node["spec"]["taints"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|taint| taint["key"].as_str())
        // The server's own, which comes and goes with the node's heartbeat.
        .filter(|key| !key.starts_with("node.kubernetes.io/"))
        .collect()
}

#[test]
fn one_of_two_controllers_works_and_when_it_is_killed_the_other_goes_on() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    let kubeconfig = kubeconfig();
    kubectl(&["apply", "--server-side", "-f", "-"], WORLD);
    for (node, ip) in [("k1", "172.31.9.1"), ("k2", "172.31.9.2")] {
        let addresses =
            format!(r#"{{"status": {{"addresses": [{{"type": "InternalIP", "address": "{ip}"}}]}}}}"#);
        kubectl(&["patch", "node", node, "--subresource=status", "--type=merge", "-p", &addresses], "");
    }
    let (_one, two) = (Beats::of("k1"), Beats::of("k2"));

    // Conditions and counts, as people see them.
    let first = Controller::start(&kubeconfig);
    until(&client, POLICY, "served", |policy| {
        let status = &policy["status"];
        let counted = status["pods"] == 2 && status["held"] == 0 && status["unprotected"] == 0;
        counted && condition(policy, "Ready")["reason"] == "InUse"
    });
    let row = kubectl(&["get", "egpol", "ctl", "--no-headers"], "");
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>()[..6],
        ["ctl", "2", "0", "0", "True", "InUse"],
        "{row}"
    );
    // The owner's workload was never there: freed, and it rests.
    until(&client, POOL, "counted", |pool| {
        let status = &pool["status"];
        let counted = status["leased"] == 2 && status["cooling"] == 1 && status["clients"] == 2;
        counted && condition(pool, "Ready")["reason"] == "InUse"
    });
    let row = kubectl(&["get", "epool", "ctl", "--no-headers"], "");
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>()[1..7],
        ["10.88.0.0/30", "2", "1", "2", "True", "InUse"],
        "{row}"
    );
    until(&client, "/apis/egret.dev/v1alpha1/egressnodes/node-77", "heard", |node| {
        condition(node, "AgentReady")["status"] == "True"
    });
    let row = kubectl(&["get", "enode", "node-77", "--no-headers"], "");
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[1..3], ["k2", "True"], "{row}");

    until(&client, "/apis/egret.dev/v1alpha1/egressendpoints/ctl", "said to serve", |endpoint| {
        condition(endpoint, "Ready")["reason"] == "Serving"
    });

    // A pod has an address that nobody calls inside; then somebody does.
    let ips = r#"{"status": {"podIPs": [{"ip": "10.250.0.7"}], "podIP": "10.250.0.7"}}"#;
    kubectl(&["patch", "pod", "one", "-n", "ctl", "--subresource=status", "--type=merge", "-p", ips], "");
    kubectl(&["apply", "--server-side", "-f", "-"], &RANGE.replace("CIDR", "10.251.0.0/16"));
    let range = "/apis/egret.dev/v1alpha1/egressranges/ctl";
    until(&client, range, "checked", |range| {
        condition(range, "AddressesInside")["reason"] == "OutsideRanges"
    });
    kubectl(&["apply", "--server-side", "-f", "-"], &RANGE.replace("CIDR", "10.250.0.0/16"));
    until(&client, range, "complete", |range| condition(range, "AddressesInside")["status"] == "True");

    // The second waits; what says it already is not written again.
    let mut second = Controller::start(&kubeconfig);
    let before = holder(&client);
    let version = version(&client, POLICY);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(holder(&client), before);
    assert_eq!(client.get(POLICY).unwrap()["metadata"]["resourceVersion"], version);

    // The first is killed where it stands.
    first.signal(nix::sys::signal::Signal::SIGKILL);
    let killed = Instant::now();
    drop(first);
    while holder(&client) == before {
        assert!(killed.elapsed() < PATIENCE, "nobody took over");
        thread::sleep(Duration::from_millis(50));
    }
    println!("killed: another leads after {:?}", killed.elapsed());

    // An agent falls silent: its node is tainted, its pods are named, nothing is taken from it.
    drop(two);
    let silent =
        until(&client, "/api/v1/nodes/k2", "tainted", |node| taints(node).contains(&"egret.dev/agent-away"));
    println!("an agent silent for 6 s: tainted after {silent:?}");
    until(&client, POLICY, "unprotected", |policy| policy["status"]["unprotectedPods"][0] == "ctl/two");
    let policy = client.get(POLICY).unwrap();
    assert_eq!(condition(&policy, "Protected")["reason"], "AgentAway");
    assert_eq!(policy["status"]["unprotectedPods"].as_array().map(Vec::len), Some(1));
    thread::sleep(Duration::from_secs(4));
    assert_eq!(client.get(BLOCK).unwrap()["spec"]["allocations"]["10.88.0.0"]["holder"]["node"], "k2");
    let two = Beats::of("k2");
    until(&client, "/api/v1/nodes/k2", "free of it", |node| taints(node) == ["spot"]);
    assert_eq!(taints(&client.get("/api/v1/nodes/k1").unwrap()), ["spot"]);

    // A node that is meant to have an agent, and one that is not: none of the two ever spoke.
    for name in ["k3", "k4"] {
        kubectl(
            &["create", "-f", "-"],
            &format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}"),
        );
    }
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: agent-k3, namespace: egret-system, labels: {app.kubernetes.io/name: egret-agent}},
        spec: {nodeName: k3, serviceAccountName: ctl-none, automountServiceAccountToken: false, tolerations: [{operator: Exists}], containers: [{name: c, image: x}]}}";
    kubectl(&["create", "serviceaccount", "-n", "egret-system", "ctl-none"], "");
    kubectl(&["create", "-f", "-"], pod);
    let meant = "/api/v1/nodes/k3";
    until(&client, meant, "tainted", |node| taints(node).contains(&"egret.dev/agent-away"));
    assert!(!taints(&client.get("/api/v1/nodes/k4").unwrap()).contains(&"egret.dev/agent-away"));
    let three = Beats::of("k3");
    until(&client, meant, "free of it", |node| !taints(node).contains(&"egret.dev/agent-away"));
    drop(three);
    kubectl(
        &["delete", "pod/agent-k3", "sa/ctl-none", "-n", "egret-system", "--force", "--grace-period=0"],
        "",
    );
    kubectl(&["delete", "node/k3", "node/k4"], "");

    // The node goes for good: its endpoint, its leases, what it said of itself.
    drop(two);
    client.delete("/api/v1/nodes/k2").unwrap();
    until(&client, BLOCK, "freed", |block| {
        let lease = &block["spec"]["allocations"]["10.88.0.0"];
        lease["holder"].is_null() && lease["freedAt"].is_u64() && block["spec"]["affinity"].is_null()
    });
    until(&client, "/apis/egret.dev/v1alpha1/egressnodes/node-77", "forgotten", Value::is_null);
    until(&client, "/apis/egret.dev/v1alpha1/egressendpoints/ctl", "forgotten", Value::is_null);
    until(&client, POLICY, "without a gateway", |policy| condition(policy, "Ready")["reason"] == "NoGateway");

    // Told to end, it hands over.
    let proxy = Proxy::start();
    let third = Controller::with(proxy.kubeconfig(), &[]);
    let waits = || proxy.asked("/leases/egret-controller") > 1;
    assert!(within(PATIENCE, Duration::from_millis(20), waits).is_some(), "the third never asks who leads");
    let before = holder(&client);
    second.signal(nix::sys::signal::Signal::SIGTERM);
    let told = Instant::now();
    second.ends();
    assert_ne!(
        holder(&client),
        before,
        "it was not handed over: a Lease lasts 10 s, also beyond its holder's end"
    );
    let led = || ![before.as_str(), ""].contains(&holder(&client).as_str());
    assert!(within(PATIENCE, Duration::from_millis(20), led).is_some(), "nobody took it over");
    println!("told to end: another leads after {:?}", told.elapsed());
    drop(third);
    kubectl(&["delete", "ns/ctl", "node/k1", "epool/ctl", "egpol/ctl", "erange/ctl", "--wait=false"], "");
    kubectl(&["delete", "eblock", "--all"], "");
}
