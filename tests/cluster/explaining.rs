//! A person with the roles of `deploy/users.yaml` and no other: what `egret explain`, `list` and `status` then see, and say that they do not.

use std::fs;
use std::path::Path;

use egret::testbed::{ROUTER, repository};
use serde_json::Value;

use crate::installation::{install, soon};
use crate::server::{kubeconfig_of, kubectl, server};
use crate::world::*;

const WORLD: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: see
  annotations: {egret.dev/selector: app == 'gw', egret.dev/namespaceSelector: projectcalico.org/name == 'see'}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: see}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: person, namespace: see}}
---
{apiVersion: v1, kind: Node, metadata: {name: see-node}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: see}, spec: {nodeName: see-node, containers: [{name: c, image: x}]}}
---
{apiVersion: projectcalico.org/v3, kind: EgressGatewayPolicy, metadata: {name: see-internet},
 spec: {rules: [{destination: {cidr: 198.51.100.0/24}, gateway: {selector: app == 'gw', namespaceSelector: all()}}]}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: see-person},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: egret-explain},
 subjects: [{kind: ServiceAccount, name: person, namespace: see}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: see-person, namespace: egret-system},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: egret-explain},
 subjects: [{kind: ServiceAccount, name: person, namespace: see}]}
";

/// What `egret … -o json` says to the person, and the problems `Unseen` in it.
fn asked(person: &Path, arguments: &str) -> (Value, Vec<String>) {
    let mut command = server().command(ROUTER);
    command.arg(env!("CARGO_BIN_EXE_egret")).args(arguments.split(' ')).args(["-o", "json", "--kubeconfig"]);
    let output = command.arg(person).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let answer: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    let problems = answer["problems"].as_array().unwrap().iter();
    let unseen = problems.filter(|problem| problem["reason"] == "Unseen");
    let unseen = unseen.map(|problem| problem["message"].as_str().unwrap().to_owned()).collect();
    (answer, unseen)
}

/// The nodes' configuration, as a person writes it.
fn configure(text: &str) {
    let patch = serde_json::json!({"data": {"egret.json": text}}).to_string();
    kubectl(&["patch", "-n", "egret-system", "configmap", "egret", "--type=merge", "-p", &patch], "");
}

const ADOPTING: &str = r#"{"mode": "cluster", "clusterCIDRs": ["10.99.0.0/16"], "adopt": ["calico"]}"#;

#[test]
fn who_has_the_roles_for_people_sees_all_that_decides_and_else_is_told_what_is_missing() {
    let _alone = alone();
    install();
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], WORLD);
    configure(ADOPTING);
    let person = kubeconfig_of("person", "see");
    let explain = |to: &str| asked(&person, &format!("explain -n see cart {to}"));
    // The server learns of roles by a watch of its own.
    soon(|| match explain("10.99.1.1") {
        (answer, unseen) if answer["items"].is_array() && unseen.is_empty() => Ok(()),
        other => Err(other),
    });
    for question in ["list -n see", "status"] {
        let (_, unseen) = asked(&person, question);
        assert_eq!(unseen, Vec::<String>::new(), "{question}");
    }
    let (answer, _) = explain("10.99.1.1");
    assert_eq!(answer["items"][0]["action"], "direct", "it is inside by clusterCIDRs: {answer:#}");

    // An adopted policy decides, and the person sees it.
    let name = "egress.projectcalico.org/egressGatewayPolicy=see-internet";
    kubectl(&["annotate", "-n", "see", "pod/cart", name], "");
    let (answer, unseen) = explain("203.0.113.1");
    assert_eq!(unseen, Vec::<String>::new());
    assert_eq!(answer["items"][0]["action"], "direct", "the policy has no rule for it: {answer:#}");

    // Without the Role the same address seems to be outside, and that is said.
    kubectl(&["delete", "-n", "egret-system", "rolebinding/see-person"], "");
    let (answer, unseen) = soon(|| match explain("10.99.1.1") {
        (_, unseen) if unseen.is_empty() => Err("it may see the ConfigMap yet"),
        seen => Ok(seen),
    });
    assert_ne!(answer["items"][0]["action"], "direct", "{answer:#}");
    let [sentence] = &unseen[..] else { panic!("{unseen:?}") };
    for part in [
        "the nodes' configuration cannot be seen, so `clusterCIDRs` and `adopt` are taken as empty",
        "`deploy/users.yaml` has the role that Egret needs: its rule for apiGroups [\"\"], resources [configmaps] needs the verb get",
    ] {
        assert!(sentence.contains(part), "{sentence}");
    }
    // A copy in hand is as good.
    let copy = std::env::temp_dir().join(format!("egret-see-{}.json", std::process::id()));
    fs::write(&copy, ADOPTING).unwrap();
    let (answer, unseen) =
        asked(&person, &format!("explain -n see cart 10.99.1.1 --config {}", copy.display()));
    assert_eq!((unseen.len(), &answer["items"][0]["action"]), (0, &"direct".into()), "{answer:#}");
    fs::remove_file(&copy).unwrap();

    // Text that is none of ours is no configuration, whoever reads it.
    configure("{");
    let (_, unseen) = asked(&server().kubeconfig("admin"), "explain -n see cart 10.99.1.1");
    assert!(unseen[0].contains("its `egret.json` is no JSON"), "{unseen:?}");

    kubectl(&["delete", "namespace/see", "clusterrolebinding/see-person", "--wait=false"], "");
    let admin = client_of("admin");
    forget(&admin);
    kubectl(
        &[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            repository().join("deploy/config.yaml").to_str().unwrap(),
        ],
        "",
    );
}

const TYPED: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: typed}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: typed}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: typed}, spec: {containers: [{name: c, image: x}]}}
";

/// Scripts must not take the answer for one about their pod. Of manifests it may be one that is to come.
#[test]
fn a_pod_that_a_cluster_does_not_have_is_no_answer_and_one_that_manifests_do_not_have_is() {
    let _alone = alone();
    let admin = client_of("admin");
    kubectl(&["apply", "--server-side", "-f", "-"], TYPED);
    let folder = std::env::temp_dir().join(format!("egret-typed-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("typed.yaml"), TYPED).unwrap();
    let said = |arguments: &str, of: &[&Path]| {
        let mut command = server().command(ROUTER);
        command.arg(env!("CARGO_BIN_EXE_egret")).args(arguments.split(' ')).args(of);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let kubeconfig = server().kubeconfig("admin");
    let cluster = [Path::new("--kubeconfig"), &kubeconfig];
    let manifests = [Path::new("--state"), &folder];
    assert_eq!(said("explain typed/cart 203.0.113.1", &cluster).0, Some(0), "a pod without a node");
    let (status, text) = said("explain typed/kart 203.0.113.1", &cluster);
    assert_eq!(status, Some(1), "{text}");
    for part in [
        "there is no such Pod object; did you mean typed/cart?",
        "`kubectl egret list -n typed` shows the pods that are there",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(said("explain typed/kart -o json", &cluster).0, Some(1));
    let (status, text) = said("explain typed/kart 203.0.113.1", &manifests);
    assert!(status == Some(0) && text.contains("did you mean typed/cart?"), "{text}");
    for known in [cluster, manifests] {
        assert_eq!(said("explain nowhere/cart 203.0.113.1", &known).0, Some(1), "nor its namespace");
    }
    fs::remove_dir_all(&folder).unwrap();
    kubectl(&["delete", "namespace/typed", "--wait=false"], "");
    forget(&admin);
}
