//! A case as a state directory, one step after another.

use serde_json::{Value, json};

use crate::case::{Case, Interface, Node, Pod, Step};
use crate::directory::Directory;
use crate::expect::Seen;

/// Plays a case; a sentence for each step that does not come out.
pub(crate) fn play(case: &Case) -> Vec<String> {
    let mut world = World::of(case);
    let mut wrong = Vec::new();
    for step in &case.steps {
        world.change(&step.change);
        wrong.extend(world.compare(step).into_iter().map(|difference| {
            format!(
                "case: {}\n  step: {}\n  {}",
                case.name,
                step.description,
                difference.replace('\n', "\n  ")
            )
        }));
    }
    wrong
}

struct World {
    directory: Directory,
    local: String,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
}

impl World {
    fn of(case: &Case) -> World {
        let directory = Directory::of(&case.local_node);
        let mut world =
            World { directory, local: case.local_node.clone(), nodes: Vec::new(), pods: Vec::new() };
        let mut namespaces = case.namespace_labels.clone();
        for pod in &case.pods {
            namespaces.entry(pod.namespace.clone()).or_default();
        }
        for (name, labels) in namespaces {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
            world.directory.write(&format!("objects/namespace-{name}.json"), &object.to_string());
        }
        case.nodes.iter().for_each(|node| world.put_node(node.clone()));
        world.pods.clone_from(&case.pods);
        case.policies.iter().for_each(|policy| world.put_policy(policy));
        world
    }

    fn put_node(&mut self, node: Node) {
        let addresses: Vec<Value> =
            node.ip.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": node.labels},
            "status": {"addresses": addresses},
        });
        self.directory.write(&format!("objects/node-{}.json", node.name), &object.to_string());
        self.directory
            .write(&format!("interfaces/{}.json", node.name), &interfaces(&node.interfaces).to_string());
        self.nodes.retain(|known| known.name != node.name);
        self.nodes.push(node);
    }

    fn put_policy(&self, policy: &Value) {
        let name = policy["metadata"]["name"].as_str().unwrap_or_default();
        self.directory.write(&format!("objects/policy-{name}.json"), &policy.to_string());
    }

    fn change(&mut self, change: &Value) {
        let text =
            |key: &str| change[key].as_str().unwrap_or_else(|| panic!("{change} has no {key}")).to_owned();
        match text("op").as_str() {
            "none" => {}
            "batch" => {
                let members = change.as_object().unwrap().values().find_map(Value::as_array);
                members.expect("a batch has changes").iter().for_each(|change| self.change(change));
            }
            "upsertPolicy" => self.put_policy(&change["policy"]),
            "deletePolicy" => self.directory.remove(&format!("objects/policy-{}.json", text("name"))),
            "upsertPod" => {
                let pod: Pod = serde_json::from_value(change["pod"].clone()).unwrap();
                self.pods.retain(|known| known.uid != pod.uid);
                self.pods.push(pod);
            }
            "deletePod" => self.pods.retain(|pod| pod.uid != change["uid"]),
            "upsertNode" => self.put_node(serde_json::from_value(change["node"].clone()).unwrap()),
            "deleteNode" => {
                self.directory.remove(&format!("objects/node-{}.json", text("name")));
                self.nodes.retain(|node| node.name != change["name"]);
            }
            other => panic!("what is a change `{other}`?"),
        }
    }

    /// In Kubernetes a pod's name is one pod's at a time; in the cases, which are about UIDs, a pod and its successor stand side by
    /// side for a moment. So each is asked about in a directory that has the one and not the other.
    fn compare(&mut self, step: &Step) -> Vec<String> {
        let mut seen = Seen::default();
        let mut left = self.pods.clone();
        loop {
            let mut now: Vec<Pod> = Vec::new();
            left.retain(|pod| {
                let taken =
                    now.iter().any(|other| (&other.namespace, &other.name) == (&pod.namespace, &pod.name));
                if !taken {
                    now.push(pod.clone());
                }
                taken
            });
            let list: Vec<Value> = now.iter().map(pod_object).collect();
            let list = json!({"apiVersion": "v1", "kind": "PodList", "items": list});
            self.directory.write("objects/pods.json", &list.to_string());
            let (view, problems) = self.directory.view();
            seen.add(&view, problems, &now, &self.local);
            if left.is_empty() {
                return seen.differences(step, self.nodes.iter().find(|node| node.name == self.local));
            }
        }
    }
}

fn pod_object(pod: &Pod) -> Value {
    let ips: Vec<Value> = pod.ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid, "labels": pod.labels},
        "spec": {"nodeName": pod.node},
        "status": {"podIPs": ips},
    })
}

/// As a node writes its own.
fn interfaces(interfaces: &[Interface]) -> Value {
    let said = |route: &Option<Value>| {
        route.as_ref().is_some_and(|route| !matches!(route, Value::Bool(false) | Value::Null))
    };
    let default =
        |route: &dyn Fn(&Interface) -> bool| interfaces.iter().find(|i| route(i)).map(|i| i.name.clone());
    let links: Vec<Value> = interfaces
        .iter()
        .map(|interface| {
            let bare = |address: &String| address.split('/').next().unwrap_or_default().to_owned();
            let addresses: Vec<String> = interface.addrs.iter().map(bare).collect();
            json!({"name": interface.name, "altnames": interface.altnames, "addresses": addresses})
        })
        .collect();
    let mut said_by_node = json!({"links": links});
    for (key, device) in [
        ("default4", default(&|i| said(&i.default_route4))),
        ("default6", default(&|i| said(&i.default_route6))),
    ] {
        if let Some(device) = device {
            said_by_node[key] = json!(device);
        }
    }
    said_by_node
}
