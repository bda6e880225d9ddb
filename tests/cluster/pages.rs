//! Pages of controllers on a real API server: one leads and one stands by, both are ready and say so; what is counted is so; a server that is
//! silent makes a controller unready and ends none.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use egret::api::document::{self, Format};
use egret::testbed::repository;

use crate::controller::{Controller, PATIENCE, kubeconfig};
use crate::leading::leaderless;
use crate::proxy::{ADDRESS, Fate, Proxy};
use crate::server::kubectl;
use crate::world::{alone, client_of, forget};

/// A client on a node that never had an agent, one that is held as well, and what a node that is gone has left.
const WORLD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: pages}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: pages}}
---
{apiVersion: v1, kind: Node, metadata: {name: pages1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: pages, labels: {app: pages}}, spec: {nodeName: pages1, containers: [{name: c, image: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: lost, namespace: pages, annotations: {egret.dev/selector: \"role == 'nobody'\"}}, spec: {nodeName: pages1, containers: [{name: c, image: x}]}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressGatewayPolicy, metadata: {name: pages}, spec: {selectors: [{selector: \"app == 'pages'\"}],
 rules: [{destination: {cidrs: [10.0.0.0/8]}}]}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: pages}, spec: {cidr: 10.86.0.0/31, gatewayNamespaces: all()}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: pages.v4-10-86-0-0-31}, spec: {pool: pages, cidr: 10.86.0.0/31, affinity: pages-gone,
 sequence: 1, allocations: {10.86.0.0: {owner: 'pod:u', sequence: 1, since: 5, holder: {network: net, container: c, ifname: eth0, node: pages-gone}}}}}
";

/// What `deploy/controller.yaml` passes to `--listen`.
fn listen() -> String {
    let manifest = fs::read(repository().join("deploy/controller.yaml")).unwrap();
    let objects = document::read(&manifest, Format::Yaml).values;
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let at = args.iter().position(|word| word == "--listen").unwrap();
    args[at + 1].as_str().unwrap().to_owned()
}

/// Status and text of a page; nothing if nobody answers.
fn page(server: &str, path: &str) -> (String, String) {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(server)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    let said = asked().unwrap_or_default();
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or_default();
    (head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned())
}

/// A number of the metrics.
fn counted(server: &str, series: &str) -> Option<f64> {
    let (_, text) = page(server, "/metrics");
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until a page says so; the whole of it.
#[track_caller]
fn says(server: &str, path: &str, status: &str, line: &str) -> String {
    let begun = Instant::now();
    loop {
        let (found, text) = page(server, path);
        if found == status && text.lines().any(|l| l.contains(line)) {
            println!("{server}{path}: {line:?} after {:?}", begun.elapsed());
            return text;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{server}{path} never says {status} {line:?}, but {found} {text}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn who_leads_and_who_stands_by_are_ready_and_a_silent_server_ends_neither() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    let own = kubeconfig();
    leaderless(&client);

    // As the manifest has it: a kubelet asks by the pod's address, which is no loopback.
    let proxy = Proxy::start();
    let one = Controller::with(proxy.kubeconfig(), &["--listen", &listen()]);
    let first = format!("{ADDRESS}:{}", listen().trim_start_matches(':'));
    says(&first, "/readyz", "200", "ok: it leads");
    let second = "127.0.0.1:9799";
    let two = Controller::with(Path::new(&own), &["--listen", second]);
    says(second, "/readyz", "200", "ok: it stands by");

    // The one that leads knows how the cluster is. Pods of other stories are left in it.
    let more = [
        ("egret_controller_agents{state=\"never\"}", 1.0),
        ("egret_controller_clients", 2.0),
        ("egret_controller_held_clients", 1.0),
        ("egret_controller_unprotected_pods{reason=\"NoAgent\"}", 2.0),
    ];
    says(&first, "/metrics", "200", "egret_controller_agents{state=\"never\"}");
    let wanted = more.map(|(series, more)| (series, counted(&first, series).unwrap() + more));
    kubectl(&["apply", "--server-side", "-f", "-"], WORLD);
    for (series, wanted) in wanted {
        says(&first, "/metrics", "200", &format!("{series} {wanted}"));
    }
    for line in [
        "egret_controller_leads 1",
        "egret_controller_reclaimed_total{of=\"node\"} 1",
        "egret_controller_reclaimed_leases_total 1",
        "egret_watch_objects{kind=\"Beats\"}",
        "egret_kube_requests_total{verb=\"PUT\",status=\"200\"}",
    ] {
        says(&first, "/metrics", "200", line);
    }
    let said = says(&first, "/metrics", "200", "egret_controller_undone 0");
    let families: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let all = include_str!("../../docs/metrics.md").split_once("## What the controller counts").unwrap().1;
    let documented = all.split("\n## ").next().unwrap().lines().filter_map(|line| {
        let mut words = line.strip_prefix("| `")?.split("` | ");
        Some(format!("{} {}", words.next()?, words.next()?.split(' ').next()?))
    });
    assert_eq!(families, documented.collect::<Vec<_>>(), "docs/metrics.md");
    let waits = says(second, "/metrics", "200", "egret_controller_leads 0");
    assert!(!waits.contains("egret_controller_unprotected_pods{"), "{waits}");

    // Nobody answers the first any more: it lives, is not ready, and says why. The other takes over.
    proxy.judge(|_| Fate::Silence);
    says(&first, "/readyz", "503", "the controllers' Lease has been out of reach for 2");
    assert_eq!(page(&first, "/healthz"), ("200".to_owned(), "ok\n".to_owned()));
    says(second, "/readyz", "200", "ok: it leads");
    let (series, wanted) = wanted[3];
    says(second, "/metrics", "200", &format!("{series} {wanted}"));
    says(&first, "/metrics", "200", "egret_controller_leads 0");
    proxy.judge(|_| Fate::Pass);
    says(&first, "/readyz", "200", "ok: it stands by");
    drop((one, two));
    leaderless(&client);
    kubectl(&["delete", "node/pages1", "egpol/pages"], "");
    kubectl(&["delete", "ns/pages", "--wait=false"], "");
    forget(&client);
}
