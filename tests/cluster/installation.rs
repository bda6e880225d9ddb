//! What `deploy/` installs: a real API server takes all of it, and its admission policies allow and refuse what they should.

use std::time::{Duration, Instant};

use egret::ipam::{Store, StoreError};
use egret::kube::access::Credential;
use egret::kube::{Access, ApiError, Client, ClusterStore};
use egret::testbed::repository;
use serde_json::{Value, json};

use crate::server::{kubectl, server};
use crate::world::*;

const ENDPOINTS: &str = "/apis/egret.dev/v1alpha1/egressendpoints";

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/egret-system/leases";

pub(crate) fn install() -> String {
    let deploy = repository().join("deploy");
    kubectl(&["apply", "--server-side", "--force-conflicts", "-k", deploy.to_str().unwrap()], "")
}

/// The agent of a node, as its pod's own token says who it is.
fn agent_of(node: &str) -> Client {
    let name = format!("agent-{node}");
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: egret-system}},
          spec: {{nodeName: {node}, serviceAccountName: egret-agent, containers: [{{name: c, image: x}}]}}}}"
    );
    kubectl(&["apply", "-f", "-"], &pod);
    bearer(&["--bound-object-kind=Pod", "--bound-object-name", &name])
}

/// The agents' service account, with a token that is bound to something.
fn bearer(bound: &[&str]) -> Client {
    let token = kubectl(&[&["create", "token", "egret-agent", "-n", "egret-system"][..], bound].concat(), "");
    server().enter().unwrap();
    let admin = Access::from_file(&server().kubeconfig("admin"), None).unwrap();
    Client::new(Access { credential: Credential::Token(token.trim().to_owned()), ..admin }).unwrap()
}

fn endpoint(name: &str, node: &str) -> Value {
    json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressEndpoint", "metadata": {"name": name}, "spec": {
        "pod": "shop/gw", "attachment": "net/c/eth0", "node": node, "underlay": ["172.31.0.2"], "vni": 4098,
        "mac": "02:67:0a:4d:00:00", "addresses": [{"ip": "10.77.0.0", "pool": "p"}], "state": "ready", "generation": 1}})
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, ApiError>, sentence: &str) {
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains(sentence), "{error}");
}

/// The server learns of roles and policies by watches of its own.
pub(crate) fn soon<T, E: std::fmt::Debug>(mut so: impl FnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match so() {
            Ok(value) => return value,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(120), "{error:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn all_of_deploy_is_taken_and_once_more_changes_nothing() {
    let _alone = alone();
    let said = install();
    for object in ["daemonset.apps/egret-agent", "deployment.apps/egret-controller", "configmap/egret"] {
        assert!(said.contains(&format!("{object} serverside-applied")), "{said}");
    }
    for file in std::fs::read_dir(repository().join("deploy/crds")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let definition = file.trim_end_matches(".egret.dev.yaml");
        assert!(
            said.contains(&format!("/{definition}.egret.dev serverside-applied")),
            "{file} is not in kustomization.yaml"
        );
    }
    let generation = |_| {
        kubectl(
            &["get", "ds", "-n", "egret-system", "egret-agent", "-o", "jsonpath={.metadata.generation}"],
            "",
        )
    };
    let before = generation(());
    install();
    assert_eq!(generation(()), before);
    let away = repository().join("deploy/uninstall");
    kubectl(&["apply", "--server-side", "--dry-run=server", "-k", away.to_str().unwrap()], "");
}

#[test]
fn an_agent_writes_what_its_own_node_says_and_nothing_else() {
    let _alone = alone();
    install();
    let admin = client_of("admin");
    forget_blocks(&admin);
    let (here, there) = (agent_of("own-here"), agent_of("own-there"));
    soon(|| ClusterStore::new(&here).pools());
    // The policy is at work when it refuses for the first time; until then a foreign endpoint would be taken.
    soon(|| match here.create(ENDPOINTS, &endpoint("own-b", "own-there")) {
        Err(error) if error.to_string().contains("may write only what its own node says") => Ok(()),
        other => {
            let _ = admin.delete(&format!("{ENDPOINTS}/own-b"));
            Err(other)
        }
    });
    here.create(ENDPOINTS, &endpoint("own-a", "own-here")).unwrap();
    refused(there.delete(&format!("{ENDPOINTS}/own-a")), "the agent of node own-there may write only");
    here.delete(&format!("{ENDPOINTS}/own-a")).unwrap();

    // Signs of life, of its own node; the controller's lease is nobody's but the controllers'.
    let sign = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}});
    soon(|| here.create(LEASES, &sign("agent.own-here")));
    for other in ["agent.own-there", "egret-controller"] {
        refused(here.create(LEASES, &sign(other)), "signs of life of its own node only");
    }
    refused(here.delete(&format!("{LEASES}/agent.own-here")), "403");

    // Leases: for containers of its own node, also in another node's block; another's are taken over by their owner alone.
    let pool = pool("own", "10.0.0.0/31", 31);
    let one = tenant("pod:a", "own-here", "a");
    let address = given(&ClusterStore::new(&here), &[&pool], one, 0);
    let forged = ask(&ClusterStore::new(&here), &[&pool], tenant("pod:b", "own-there", "b"), 0).unwrap_err();
    assert!(forged.to_string().contains("to containers of its own node only"), "{forged}");
    let set = tenant("ordinal:shop/gw/0", "own-there", "c");
    let lent = given(&ClusterStore::new(&there), &[&pool], set, 0);
    assert_ne!(lent, address);
    let moved = tenant("ordinal:shop/gw/0", "own-here", "d");
    assert_eq!(given(&ClusterStore::new(&here), &[&pool], moved, 1), lent, "it follows its owner");
    let stolen = ask(&ClusterStore::new(&there), &[&pool], tenant("pod:a", "own-there", "e"), 2).unwrap_err();
    assert!(stolen.to_string().contains("that a container of another node has"), "{stolen}");
    let back = egret::ipam::release(
        &ClusterStore::new(&here),
        &holder("own-here", "a"),
        egret::ipam::After::Owner,
        3,
    );
    assert_eq!(back.map_err(|e: StoreError| e.to_string()).unwrap().len(), 1);
    forget_blocks(&admin);
}

#[test]
fn an_agent_that_is_started_by_hand_is_held_to_the_node_of_its_token() {
    let _alone = alone();
    for file in ["rbac.yaml", "admission.yaml"] {
        let file = repository().join("deploy").join(file);
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file.to_str().unwrap()], "");
    }
    kubectl(&["apply", "-f", "-"], "{apiVersion: v1, kind: Node, metadata: {name: hand}}");
    let here = bearer(&["--bound-object-kind=Node", "--bound-object-name=hand"]);
    let sign = |node: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": format!("agent.{node}")}, "spec": {}});
    soon(|| here.create(LEASES, &sign("hand")));
    soon(|| match here.create(LEASES, &sign("hand-other")) {
        Err(error) if error.to_string().contains("signs of life of its own node only") => Ok(()),
        other => {
            kubectl(&["delete", "lease", "-n", "egret-system", "agent.hand-other", "--ignore-not-found"], "");
            Err(other)
        }
    });
    refused(bearer(&[]).create(LEASES, &sign("hand")), "the agent's token names no node");
    kubectl(&["delete", "lease", "-n", "egret-system", "agent.hand"], "");
    kubectl(&["delete", "node", "hand"], "");
}

#[test]
fn an_agent_annotates_pods_of_its_own_node_with_addresses_and_nothing_else() {
    let _alone = alone();
    install();
    let (here, there) = (agent_of("tell-here"), agent_of("tell-there"));
    let own = "/api/v1/namespaces/egret-system/pods/agent-tell-here/status";
    let addresses = json!({"metadata": {"annotations": {"egret.dev/egress-addresses": "10.10.10.0"}}});
    soon(|| here.merge(own, &addresses));
    // The policy is at work when it refuses for the first time.
    soon(|| match there.merge(own, &addresses) {
        Err(error) if error.to_string().contains("may annotate only pods of its own node") => Ok(()),
        other => Err(other),
    });
    let other = json!({"metadata": {"annotations": {"cni.projectcalico.org/ipv4pools": "[]"}}});
    refused(here.merge(own, &other), "writes no annotation of pods but egret.dev/egress-addresses");

    // What somebody else wrote stays as it is, beside an annotation of ours or alone.
    let pod = ["pod", "-n", "egret-system", "agent-tell-here"];
    kubectl(&[&["annotate"], &pod[..], &["egret.dev/selector=role == 'gw'"]].concat(), "");
    kubectl(&[&["label"], &pod[..], &["role=gw"]].concat(), "");
    let metadata = |fields: Value| json!({"metadata": fields});
    let (no_removal, nothing_else) =
        ("removes no annotation of pods but", "changes no labels, finalizers or status of pods");
    for (forged, sentence) in [
        (metadata(json!({"annotations": {"egret.dev/selector": null}})), no_removal),
        (metadata(json!({"annotations": null})), no_removal),
        (
            metadata(json!({"annotations": {"egret.dev/selector": "all()"}})),
            "writes no annotation of pods but",
        ),
        (metadata(json!({"labels": {"role": "other"}})), nothing_else),
        (metadata(json!({"labels": {"new": "1"}})), nothing_else),
        (metadata(json!({"labels": null})), nothing_else),
        (metadata(json!({"finalizers": ["egret.dev/stay"]})), nothing_else),
        (json!({"status": {"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}]}}), nothing_else),
        (json!({"status": {"phase": "Succeeded"}}), nothing_else),
        (json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}), nothing_else),
    ] {
        refused(here.merge(own, &forged), sentence);
    }
    here.merge(own, &addresses).unwrap();
    here.merge(own, &json!({"metadata": {"annotations": {"egret.dev/egress-addresses": null}}})).unwrap();
    refused(here.merge("/api/v1/namespaces/egret-system/pods/agent-tell-here", &addresses), "403");
}

const TEAM: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: team}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: team}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: dev, namespace: team}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: team-dev},
 rules: [{apiGroups: [''], resources: [pods, namespaces], verbs: [get, create, update, patch, delete]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: team-dev},
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: team-dev},
 subjects: [{kind: ServiceAccount, name: dev, namespace: team}]}
";

/// Who is given `use` on the policies `internet` and `partners`.
fn allow(account: &str) {
    let text = format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: use-internet}},
          rules: [{{apiGroups: [egret.dev], resources: [egressgatewaypolicies], resourceNames: [internet, partners], verbs: [use]}}]}}
---
{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {{name: use-internet-{account}}},
  roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: use-internet}},
  subjects: [{{kind: ServiceAccount, name: {account}, namespace: team}}]}}"
    );
    kubectl(&["apply", "-f", "-"], &text);
}

#[test]
fn who_names_a_policy_must_be_allowed_to_use_it() {
    let _alone = alone();
    install();
    kubectl(&["apply", "-f", "-"], TEAM);
    let as_dev = "--as=system:serviceaccount:team:dev";
    let pod = |policy: &str, key: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: cart, namespace: team, annotations: {{{key}: {policy}}}}},
              spec: {{containers: [{{name: c, image: x}}]}}}}"
        );
        server().kubectl(&["create", as_dev, "-f", "-"], &text).map_err(|no| no.to_string())
    };
    let annotate = |what: &[&str], pair: &str| {
        let arguments = [&["annotate", "--overwrite", as_dev][..], what, &[pair]].concat();
        server().kubectl(&arguments, "").map_err(|no| no.to_string())
    };
    let sentence = "neither system:serviceaccount:team:dev nor the service account team/default may use EgressGatewayPolicy internet";
    for key in ["egret.dev/egressGatewayPolicy", "egress.projectcalico.org/egressGatewayPolicy"] {
        soon(|| match pod("internet", key) {
            Err(said) if said.contains(sentence) => Ok(()),
            other => {
                kubectl(&["delete", "pod", "-n", "team", "cart", "--ignore-not-found", "--force"], "");
                Err(other)
            }
        });
    }
    allow("default");
    soon(|| pod("internet", "egret.dev/egressGatewayPolicy"));
    // What was named before may stay; another one may not come beside it.
    let cart = ["pod", "-n", "team", "cart"];
    annotate(&cart, "note=1").unwrap();
    let said = annotate(&cart, "egress.projectcalico.org/egressGatewayPolicy=secret").unwrap_err();
    assert!(said.contains("may use EgressGatewayPolicy secret"), "{said}");

    // A namespace speaks for all its pods: whoever annotates it must be allowed.
    let sentence = "system:serviceaccount:team:dev may not use EgressGatewayPolicy internet";
    soon(|| match annotate(&["namespace", "team"], "egret.dev/egressGatewayPolicy=internet") {
        Err(said) if said.contains(sentence) => Ok(()),
        other => {
            kubectl(&["annotate", "namespace", "team", "egret.dev/egressGatewayPolicy-"], "");
            Err(other)
        }
    });
    allow("dev");
    soon(|| annotate(&["namespace", "team"], "egret.dev/egressGatewayPolicy=internet"));

    // Of several names each is asked for, however the list is written.
    let named =
        |names: &str| annotate(&["namespace", "team"], &format!("egret.dev/egressGatewayPolicy={names}"));
    for names in
        ["partners, internet", r#"["internet","partners"]"#, "partners", "internet, partners, internet"]
    {
        named(names).unwrap();
    }
    for (names, refused) in [
        ("internet, partners, secret", "may not use EgressGatewayPolicy secret:"),
        (r#"["secret", "internet"]"#, "may not use EgressGatewayPolicy secret:"),
        (r#"["\u0073ecret"]"#, r"may not use EgressGatewayPolicy \u0073ecret:"),
        ("a,b,c,d,e,f,g,h,i", "at most 8 EgressGatewayPolicies can be named here, and 9 are"),
    ] {
        let said = named(names).unwrap_err();
        assert!(said.contains(refused), "{names}: {said}");
    }
    // The service account may, though whoever makes the pod may not, as for the pods of a Deployment.
    kubectl(&["delete", "clusterrolebinding", "use-internet-dev"], "");
    let mut turns = ["partners", "internet"].into_iter().cycle();
    soon(|| named(turns.next().unwrap()).map_or(Ok(()), Err));
    let several = |names: &str| {
        kubectl(&["delete", "pod", "-n", "team", "cart", "--ignore-not-found", "--force"], "");
        pod(names, "egret.dev/egressGatewayPolicy")
    };
    several("'internet, partners, internet'").unwrap();
    let said = several("'partners, internet, secret'").unwrap_err();
    assert!(said.contains("team/default may use EgressGatewayPolicy secret:"), "{said}");
}
