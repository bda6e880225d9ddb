//! What a person asks a cluster: the command line reads the objects of a real API server once, and answers as it does offline.

use std::fs;

use egret::kube::ClusterStore;
use egret::testbed::ROUTER;
use serde_json::Value;

use crate::server::{kubectl, server};
use crate::world::*;

const WORLD: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: ask
  annotations: {egret.dev/selector: app == 'gw', egret.dev/namespaceSelector: projectcalico.org/name == 'ask-gw'}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ask-gw}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: ask}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: ask-gw}}
---
{apiVersion: v1, kind: Node, metadata: {name: ask-node1}}
---
{apiVersion: v1, kind: Node, metadata: {name: ask-node2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: ask}, spec: {nodeName: ask-node1, containers: [{name: c, image: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gw, namespace: ask-gw, labels: {app: gw}, annotations: {egret.dev/ipv4pools: '[\"ask-pool\"]'}},
 spec: {nodeName: ask-node2, containers: [{name: c, image: x}]}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: ask-pool},
 spec: {cidr: 10.88.0.0/31, gatewayNamespaces: projectcalico.org/name == 'ask-gw', clientNamespaces: all()}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressEndpoint, metadata: {name: ask-gw}, spec: {pod: ask-gw/gw, attachment: net/ask/eth0, node: ask-node2,
 underlay: [172.31.0.2], vni: 4098, mac: '02:67:0a:58:00:00', addresses: [{ip: 10.88.0.0, pool: ask-pool}], state: ready, generation: 1}}
";

/// Runs `egret` where the server is, as somebody; its status, and all it said.
fn ask(user: &str, arguments: &str) -> (Option<i32>, String) {
    let words = arguments.split(' ').filter(|word| !word.is_empty());
    let output = server()
        .command(ROUTER)
        .arg(env!("CARGO_BIN_EXE_egret"))
        .args(words)
        .arg("--kubeconfig")
        .arg(server().kubeconfig(user))
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[track_caller]
fn json(arguments: &str) -> Value {
    let (status, said) = ask("admin", &format!("{arguments} -o json"));
    assert_eq!(status, Some(0), "{said}");
    serde_json::from_str(&said).unwrap()
}

fn world() {
    kubectl(&["apply", "-f", "-"], WORLD);
    let addressed =
        r#"{"status": {"phase": "Running", "podIP": "10.244.1.9", "podIPs": [{"ip": "10.244.1.9"}]}}"#;
    kubectl(
        &["patch", "pod", "-n", "ask", "cart", "--subresource=status", "--type=merge", "-p", addressed],
        "",
    );
    let client = client_of("admin");
    forget_blocks(&client);
    let pool = pool("ask-pool", "10.88.0.0/31", 31);
    assert_eq!(
        given(&ClusterStore::new(&client), &[&pool], tenant("pod:ask", "ask-node2", "ask"), 0),
        "10.88.0.0"
    );
}

#[test]
fn list_explain_and_status_say_where_a_clusters_pods_leave() {
    let _alone = alone();
    world();
    let listed = json("list -n ask");
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed:#}");
    let row = &listed["items"][0];
    assert_eq!(
        (&row["action"], &row["gateways"][0]["egressAddress"]),
        (&"gateway".into(), &"10.88.0.0".into())
    );
    let explained = json("explain -n ask cart 198.51.100.1");
    assert_eq!(explained["items"][0]["sources"], serde_json::json!(["10.88.0.0"]), "{explained:#}");
    let (status, said) = ask("admin", "explain -n ask kart 198.51.100.1");
    assert!(
        status == Some(1) && said.contains("did you mean ask/cart?"),
        "every pod of a cluster has an object: {said}"
    );
    let status = json("status --node ask-node2");
    assert_eq!(status["items"][0]["gateways"], 1, "{status:#}");
    assert_eq!(status["gateways"][0]["clients"], 1);
    let (_, said) = ask("admin", "status");
    // How wide a column is, other stories' objects have a say in.
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["cluster https://172.31.0.254:6443", "ask-gw/gw ask-node2 ready", "ask-pool 10.88.0.0/31"] {
        assert!(words.contains(part), "{said}");
    }
    // The gateway is gone: the pod is held, and status says so by its exit.
    kubectl(&["delete", "eep", "ask-gw"], "");
    let (status, said) = ask("admin", "status --node ask-node1");
    assert_eq!(status, Some(1), "{said}");
    let (_, said) = ask("admin", "explain -n ask cart 198.51.100.1");
    assert!(said.contains("held"), "{said}");
}

#[test]
fn pods_that_have_ended_are_nobodys_clients() {
    let _alone = alone();
    world();
    let job = "{apiVersion: v1, kind: Pod, metadata: {name: job, namespace: ask}, spec: {nodeName: ask-node2, containers: [{name: c, image: x}]}}";
    kubectl(&["apply", "-f", "-"], job);
    let clients = || json("status --node ask-node2")["items"][0].clone();
    assert_eq!((&clients()["clients"], &clients()["held"]), (&1.into(), &0.into()), "it is about to start");
    let ended =
        r#"{"status": {"phase": "Succeeded", "podIP": "10.244.2.9", "podIPs": [{"ip": "10.244.2.9"}]}}"#;
    kubectl(&["patch", "pod", "-n", "ask", "job", "--subresource=status", "--type=merge", "-p", ended], "");
    assert_eq!((&clients()["clients"], &clients()["held"]), (&0.into(), &0.into()));
    let listed = json("list -n ask");
    assert!(listed["items"].as_array().unwrap().iter().all(|row| row["pod"] != "ask/job"), "{listed:#}");
    assert_eq!(json("list ask/job")["items"][0]["pod"], "ask/job", "who asks for it by name sees it");
    kubectl(&["delete", "pod", "-n", "ask", "job", "--force", "--grace-period=0"], "");
}

#[test]
fn leases_of_a_cluster_are_shown_checked_and_given_back() {
    let _alone = alone();
    world();
    let shown = json("ipam show ask-pool");
    assert_eq!(
        (&shown["pools"][0]["leased"], &shown["items"][0]["address"]),
        (&1.into(), &"10.88.0.0".into())
    );
    let (status, said) = ask("admin", "ipam show nothing");
    assert!(
        status == Some(1) && said.contains("there is no pool nothing in https://172.31.0.254:6443"),
        "{said}"
    );
    let (_, said) = ask("admin", "ipam check --grace 0");
    assert!(said.contains("1 block, 1 lease"), "{said}");
    let (status, said) = ask("admin", "ipam release 10.88.0.0");
    assert!(status == Some(1) && said.contains("--force"), "{said}");
    let (status, said) = ask("admin", "ipam release 10.88.0.0 --force");
    assert!(status == Some(0) && said.contains("no longer kept for pod:ask"), "{said}");
    assert_eq!(json("ipam show ask-pool")["pools"][0]["leased"], 0);
}

#[test]
fn manifests_are_judged_beside_what_the_cluster_has() {
    let _alone = alone();
    world();
    let file = std::env::temp_dir().join(format!("egret-ask-{}.yaml", std::process::id()));
    let overlapping = "{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: other}, spec: {cidr: 10.88.0.0/29}}";
    fs::write(&file, overlapping).unwrap();
    let (status, said) = ask("admin", &format!("lint -f {}", file.display()));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("ask-pool") && said.contains("1 object in 1 file"), "{said}");
    // Whatever it is called, it does not take the addresses of the pool that is in use.
    fs::write(&file, overlapping.replace("name: other", "name: ask-a")).unwrap();
    let (_, said) = ask("admin", &format!("lint -f {}", file.display()));
    assert!(
        said.contains("EgressPool ask-a: spec.cidr: 10.88.0.0/29 overlaps")
            && said.contains("which is older"),
        "{said}"
    );
    // One that says that it is older would: the file is well, the cluster would not be.
    let older = overlapping.replace("name: other", "name: ask-a, creationTimestamp: '2020-01-01T00:00:00Z'");
    fs::write(&file, older).unwrap();
    let (status, said) = ask("admin", &format!("lint -f {}", file.display()));
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("error[PoolOverlap]: EgressPool ask-pool: spec.cidr: 10.88.0.0/31 overlaps"),
        "{said}"
    );
    // What replaces an object of the cluster does not stand beside it.
    fs::write(&file, overlapping.replace("name: other", "name: ask-pool")).unwrap();
    let (_, said) = ask("admin", &format!("lint -f {}", file.display()));
    assert!(!said.contains("overlaps"), "{said}");
    // What is wrong without the file is none of its faults.
    fs::write(&file, "{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: apart}, spec: {cidr: 10.99.0.0/29}}").unwrap();
    kubectl(&["apply", "-f", "-"], &overlapping.replace("name: other", "name: ask-wrong"));
    let (_, said) = ask("admin", &format!("lint -f {}", file.display()));
    assert!(!said.contains("overlaps"), "{said}");
    kubectl(&["delete", "epool", "ask-wrong"], "");
    fs::remove_file(&file).unwrap();
    let (_, said) = ask("admin", "lint");
    assert!(said.contains("in the cluster"), "{said}");
}

#[test]
fn who_may_not_or_names_two_worlds_is_told_so() {
    let _alone = alone();
    let (status, said) = ask("nobody", "list");
    assert_eq!(status, Some(1));
    assert!(said.contains("cannot list resource \"namespaces\"") && said.contains("403"), "{said}");
    assert!(said.contains("`deploy/users.yaml` has the role"), "{said}");
    let (status, said) = ask("admin", "list --context other");
    assert!(status == Some(2) && said.contains("it has no context `other`"), "{said}");
    let (status, said) = ask("admin", "list --state /var/lib/egret");
    assert!(status == Some(2) && said.contains("name one of them"), "{said}");
}

#[test]
fn a_program_that_hands_out_credentials_is_asked_as_kubectl_asks_it() {
    let _alone = alone();
    world();
    kubectl(
        &["apply", "-f", "-"],
        "{apiVersion: v1, kind: ServiceAccount, metadata: {name: person, namespace: ask}}",
    );
    let binding = "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: ask-person},
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}, subjects: [{kind: ServiceAccount, name: person, namespace: ask}]}";
    kubectl(&["apply", "-f", "-"], binding);
    let token = kubectl(&["create", "token", "person", "-n", "ask", "--duration=1h"], "");
    let admin = egret::kube::Access::from_file(&server().kubeconfig("admin"), None).unwrap();
    let folder = server().folder();
    let config = format!(
        "{{apiVersion: v1, kind: Config, current-context: x, contexts: [{{name: x, context: {{cluster: c, user: u}}}}],\n\
         clusters: [{{name: c, cluster: {{server: \"{}\", certificate-authority: pki/ca.crt}}}}],\n\
         users: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: ./hand-out, args: [person], \
         interactiveMode: IfAvailable, provideClusterInfo: true, installHint: null, env: [{{name: WHO, value: me}}]}}}}}}]}}\n",
        admin.server()
    );
    fs::write(server().kubeconfig("program"), config).unwrap();
    let asked = folder.join("asked");
    let program = |until: &str| {
        let said = format!(
            r#"{{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {{"token": "{}", "expirationTimestamp": "{until}"}}}}"#,
            token.trim()
        );
        let script = format!(
            "#!/bin/sh\necho \"$WHO $1 $KUBERNETES_EXEC_INFO\" >> {}\ncat <<'E'\n{said}\nE\n",
            asked.display()
        );
        let _ = fs::remove_file(&asked);
        fs::write(folder.join("hand-out"), script).unwrap();
        fs::set_permissions(folder.join("hand-out"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    };
    let times = || fs::read_to_string(&asked).unwrap().lines().count();
    program("2999-01-01T00:00:00Z");
    let (status, said) = ask("program", "list -n ask");
    assert!(status == Some(0) && said.contains("ask/cart"), "{said}");
    let line = fs::read_to_string(&asked).unwrap();
    assert!(times() == 1 && line.starts_with("me person {"), "{line}");
    let info: Value = serde_json::from_str(line.trim().trim_start_matches("me person ")).unwrap();
    assert_eq!(
        (&info["kind"], &info["spec"]["interactive"]),
        (&"ExecCredential".into(), &false.into()),
        "{info}"
    );
    assert_eq!(info["spec"]["cluster"]["server"], admin.server());
    // One that has expired is not used twice.
    program("2001-01-01T00:00:00Z");
    assert_eq!(ask("program", "list -n ask").0, Some(0));
    assert!(times() > 2, "{}", times());
    kubectl(&["delete", "clusterrolebinding/ask-person"], "");
}

#[test]
fn kubectl_egret_is_this_program_and_is_completed() {
    let _alone = alone();
    world();
    let folder = std::env::temp_dir().join(format!("egret-plugin-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for name in ["kubectl-egret", "kubectl_complete-egret"] {
        let _ = fs::remove_file(folder.join(name));
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_egret"), folder.join(name)).unwrap();
    }
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let kubectl = |arguments: &[&str]| {
        let output = server().kubectl_command().args(arguments).env("PATH", &path).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let said = kubectl(&["egret", "list", "-n", "ask"]);
    assert!(said.contains("ask/cart") && said.contains("10.88.0.0"), "{said}");
    let said = kubectl(&["egret", "lint"]);
    assert!(said.contains("in the cluster"), "{said}");
    let said = kubectl(&["egret", "explain", "-h"]);
    assert!(said.contains("Usage: kubectl egret explain"), "{said}");
    let said = kubectl(&["__complete", "egret", "ipam", "re"]);
    assert!(said.starts_with("release\t"), "{said}");
    fs::remove_dir_all(&folder).unwrap();
}
