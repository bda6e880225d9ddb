//! Objects that are wrong in every way at once: the rest works, and pods of broken ones are held.

use serde_json::Value;

use crate::lab::{Lab, nodes};

const POOL: &str = "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {name: NAME}\nspec: {cidr: 'CIDR', gatewayNamespaces: all(), clientNamespaces: all()}\n";

#[test]
fn a_directory_full_of_broken_objects_serves_the_good_ones_and_holds_pods_of_the_broken() {
    let lab = Lab::raise(egret::testbed::Topology { settle: false, ..nodes(1) });
    let pool = |name: &str, cidr: &str| POOL.replace("NAME", name).replace("CIDR", cidr);
    for (file, text) in [
        ("overlap1.yaml", pool("overlap1", "10.10.11.0/28")),
        ("overlap2.yaml", pool("overlap2", "10.10.11.8/29")),
        ("hostbits.yaml", pool("hostbits", "10.10.12.3/28")),
        ("tiny.yaml", pool("tiny", "10.10.13.0/31").replace("spec: {", "spec: {blockSize: 30, ")),
        ("sixinfour.yaml", pool("sixinfour", "fd00:10:10::99999/124")),
        ("noyaml.yaml", "kind: [unclosed".to_owned()),
        ("unknown.yaml", "apiVersion: example.org/v1\nkind: Mystery\nmetadata: {name: what}\n".to_owned()),
        ("nameless.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {}\n".to_owned()),
        ("unreadable.yaml", String::new()),
    ] {
        lab.object_file(file, &text).unwrap();
    }
    // Root reads whatever its mode is; a loop of links nobody reads.
    let unreadable = std::path::Path::new(egret::testbed::STATE_DIR).join("objects/unreadable.yaml");
    std::fs::remove_file(&unreadable).unwrap();
    std::os::unix::fs::symlink("unreadable.yaml", &unreadable).unwrap();
    for n in 0..1000 {
        lab.object_file(
            &format!("crowd/{n}.yaml"),
            &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: n{n}}}\n"),
        )
        .unwrap();
    }
    let broken = [("egress.projectcalico.org/selector", "egress-code ==")];
    lab.namespace("broken", &[], &broken).unwrap();
    let gateway = lab.gateway(1, "g");
    let good = lab.client(1, "good");
    lab.pod_object("broken/bad", &[], &[], 1).unwrap();
    let held = lab.add_pod(1, "broken/bad").unwrap();

    assert_eq!(lab.leaves_as_predicted(&good), lab.leases(&gateway).into_iter().collect());
    lab.is_held(&held);
    let report = lab.json(1, &["reconcile"]);
    let problems = report["problems"].as_array().unwrap();
    // Where it stands, what it is, and what is wrong there: file, object, field, reason.
    for [file, object, field, reason] in [
        ["overlap2.yaml", "EgressPool overlap2", "spec.cidr", "PoolOverlap"],
        ["hostbits.yaml", "EgressPool hostbits", "spec.cidr", "CidrHostBits"],
        ["tiny.yaml", "EgressPool tiny", "spec.blockSize", "PoolTooSmall"],
        ["sixinfour.yaml", "EgressPool sixinfour", "spec.cidr", "CidrSyntax"],
        ["noyaml.yaml", "", "", "NotYaml"],
        ["unknown.yaml", "Mystery", "", ""],
        ["nameless.yaml", "Namespace", "metadata.name", "NoName"],
        ["unreadable.yaml", "", "", "Unreadable"],
        ["", "Namespace broken", "egress.projectcalico.org/selector", "SelectorSyntax"],
    ] {
        let has = |p: &&Value, key: &str, word: &str| p[key].as_str().unwrap_or_default().contains(word);
        let found = problems.iter().find(|p| {
            has(p, "file", file)
                && has(p, "object", object)
                && has(p, "field", field)
                && has(p, "reason", reason)
        });
        let found = found.unwrap_or_else(|| panic!("{file} {object} {field} {reason}: {problems:#?}"));
        assert!(found["message"].as_str().is_some_and(|said| said.len() > 20), "{found}");
    }
}
