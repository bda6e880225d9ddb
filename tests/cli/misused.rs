//! Arguments that name what is not there, or ask a node's question of a cluster.

use crate::world::Folder;

/// One of another program's.
const OTHERS: &str = r#"{"type": "bridge"}"#;

#[test]
fn a_file_that_is_named_and_is_not_there_or_says_nothing_is_a_wrong_argument() {
    let folder = Folder::with(&[("state/objects/none.yaml", ""), ("others.json", OTHERS)]);
    let cases = [
        ("status --config away", "--config names a file"),
        ("status --config others.json", "has no entry of type \"egret\""),
        ("reconcile --dry-run --config away", "--config names a file"),
        ("agent --listen off --config away", "--config names a file"),
        ("agent --listen here --config others.json", "--listen here"),
        ("agent --listen off --kubeconfig away", "name a kubeconfig that is there"),
        ("controller --kubeconfig away", "name a kubeconfig that is there"),
        ("controller --listen here --kubeconfig away", "write it as 127.0.0.1:9791, [::1]:9791, :9791"),
        ("controller --config away", "--config names a file"),
        ("list --kubeconfig away", "name a kubeconfig that is there"),
        ("lint -f away", "name manifests, or a folder of them"),
        ("convert -f away", "name manifests, or a folder of them"),
        ("man away", "away is no folder: name one that is there"),
        ("schema EgressPol", "did you mean"),
        ("crds egresspol", "is no definition that Egret has; there are egresspools.egret.dev"),
    ];
    for (command, next) in cases {
        let said = folder.egret(command);
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{command}: {}", said.err);
        assert!(said.err.contains(next), "{command}: {}", said.err);
    }
}

/// `kubectl egret uninstall` would take this machine's rules away, whichever cluster was meant.
#[test]
fn what_changes_a_node_is_not_asked_of_a_cluster() {
    let folder = Folder::with(&[]);
    for command in ["uninstall", "uninstall --dry-run", "reconcile"] {
        let said = folder.egret(&format!("{command} --kubeconfig any"));
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{command}: {}", said.err);
        assert!(said.err.contains("about the machine that it runs on"), "{command}: {}", said.err);
    }
}

#[test]
fn a_pod_that_is_unknown_is_an_answer_with_a_next_step() {
    let folder = Folder::with(&[(
        "objects/pod.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop}}",
    )]);
    for (name, next) in [("shop/kart", "did you mean shop/cart?"), ("nobody", "without a name shows those")] {
        let said = folder.egret(&format!("list --state . {name}"));
        assert!(said.status == 1 && said.err.contains(next), "{}", said.err);
    }
}
