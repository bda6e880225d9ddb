//! The API server takes our definitions, every good example, and no bad one; and it agrees with the readers of files.

use std::fs;
use std::path::{Path, PathBuf};

use egret::api::{Object, read};
use egret::testbed::repository;

use crate::bad::{BAD, object};
use crate::server::{kubectl, server};
use crate::world::alone;

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

const OF_OURS: [&str; 4] = ["EgressPool", "EgressGatewayPolicy", "CiliumEgressGatewayPolicy", "IPPool"];

#[test]
fn every_example_of_the_repository_is_taken() {
    let _alone = alone(); // definitions come and go in other stories
    let server = server();
    let mut count = 0;
    for path in yaml_files(&repository().join("examples")) {
        let text = fs::read_to_string(&path).unwrap();
        for document in text.split("\n---").filter(|document| {
            // Calico's own store is there only where Calico is.
            !document.contains("apiVersion: crd.projectcalico.org/")
                && OF_OURS.iter().any(|kind| document.lines().any(|line| line == format!("kind: {kind}")))
        }) {
            let create = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
            let said = server.kubectl(&create, document);
            assert!(said.is_ok(), "{}: {said:?}\n{document}", path.display());
            count += 1;
        }
    }
    assert!(count >= 6, "only {count} examples");
}

/// Whether Egret, reading a file, would obey it.
fn is_obeyed(text: &str) -> bool {
    let reading = read("bad.yaml", text.as_bytes());
    assert_eq!(reading.objects.len(), 1, "{text}: {:?}", reading.problems);
    match &reading.objects[0].object {
        None => false,
        Some(Object::Policy(policy)) => policy.unfit.is_empty(),
        Some(_) => true,
    }
}

#[test]
fn every_bad_example_is_refused_with_its_sentence_as_a_file_would_be() {
    let _alone = alone(); // definitions come and go in other stories
    let server = server();
    let mut wrong = Vec::new();
    for (kind, spec, sentence) in BAD {
        let text = object(kind, spec);
        let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        let said = server.kubectl(&create, &text).map_or_else(|no| no.to_string(), |_| "nothing".to_owned());
        if !said.contains(sentence) {
            wrong.push(format!("{text}\n  should say {sentence}\n  says {said}"));
        }
        // A slip in a field's name is no reason not to obey an object in a file; a cluster's clients ask for strictness.
        if !sentence.contains("unknown field") && is_obeyed(&text) {
            wrong.push(format!("{text}: a file is obeyed"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_status_does_not_touch_what_is_wanted_and_columns_show_it() {
    let _alone = alone(); // definitions come and go in other stories
    let pool = "{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: shown}, spec: {cidr: 10.9.0.0/28}}";
    kubectl(&["apply", "-f", "-"], pool);
    let status = r#"{"spec": {"disabled": true}, "status": {"leased": 3, "free": "13", "clients": 7, "conditions":
        [{"type": "Ready", "status": "True", "reason": "InUse", "message": "3 of 16 leased.", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}"#;
    let patch = ["patch", "epool", "shown", "--subresource=status", "--type=merge", "-p", status];
    kubectl(&patch, "");
    let shown = kubectl(&["get", "egret"], "");
    let row = shown.lines().find(|line| line.contains("shown")).unwrap_or_else(|| panic!("{shown}"));
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[1..7], ["10.9.0.0/28", "3", "13", "7", "True", "InUse"], "{shown}");
    let disabled = kubectl(&["get", "epool", "shown", "-o", "jsonpath={.spec.disabled}"], "");
    assert_eq!(disabled, "", "the status wrote what is wanted");
}
