//! Manifests of `deploy/` name the pages where the programs serve them: who asks elsewhere kills what is well.

use std::net::SocketAddr;

use egret::api::document::{Format, read};
use egret::probes::web;
use serde_json::Value;

/// The pod that a manifest makes, and the container of it that serves pages.
fn served(manifest: &str, name: &str) -> (Value, Value) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let objects = read(&std::fs::read(root.join(manifest)).unwrap(), Format::Yaml).values;
    let mut templates = objects.iter().filter_map(|object| object["spec"].get("template"));
    let pod = templates.next().unwrap_or_else(|| panic!("{manifest} makes no pods"))["spec"].clone();
    let containers = pod["containers"].as_array().unwrap();
    let container = containers.iter().find(|container| container["name"] == name).unwrap().clone();
    (pod, container)
}

/// Where it listens by its arguments.
fn listens(container: &Value, usual: &str) -> Vec<SocketAddr> {
    let words: Vec<&str> = container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let said = words.iter().position(|word| *word == "--listen").map(|at| words[at + 1]);
    web::addresses(said.unwrap_or(usual)).unwrap()
}

#[test]
fn a_kubelet_asks_where_the_agent_and_the_controller_listen() {
    for (manifest, name, usual) in [
        ("deploy/agent.yaml", "agent", web::AGENT),
        ("deploy/controller.yaml", "controller", web::CONTROLLER),
    ] {
        let (pod, container) = served(manifest, name);
        let addresses = listens(&container, usual);
        for (probe, page) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let asked = &container[probe]["httpGet"];
            assert_eq!(asked["path"], page, "{manifest}: {probe}");
            let is_reached = |address: &&SocketAddr| match asked["host"].as_str() {
                // By the kubelet's own loopback, which is the pod's only in the host's network.
                Some(host) => pod["hostNetwork"] == true && address.ip().to_string() == host,
                None => address.ip().is_unspecified(),
            };
            let reached: Vec<u16> = addresses.iter().filter(is_reached).map(SocketAddr::port).collect();
            assert!(!reached.is_empty(), "{manifest}: {probe} asks where nobody listens");
            assert!(reached.iter().all(|port| asked["port"] == *port), "{manifest}: {probe}: {reached:?}");
        }
    }
}

#[test]
fn both_may_run_in_one_network() {
    assert_ne!(web::addresses(web::AGENT).unwrap(), web::addresses(web::CONTROLLER).unwrap());
}
