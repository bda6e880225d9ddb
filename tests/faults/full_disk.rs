//! A disk that becomes full in the middle of an ADD, wherever that is: so many pages are free at its beginning, and one more each time,
//! until it succeeds. Each time before, it says so and leaves nothing.

use std::fs::File;
use std::path::Path;

use egret::testbed::{Pod, RUN_DIR, STATE_DIR};
use serde_json::Value;

use crate::bad_ground::{FILLER, empty, fill};
use crate::books::{assert_in_order, egret_config, gc, records};
use crate::halfway::{kernel, lab};
use crate::lab::{Lab, WANTS_LEASES};

/// What tmpfs gives away at once, bytes.
const PAGE: u64 = 4096;
/// More than any ADD writes.
const MOST: u64 = 40;

/// Our plugin's verb for a pod that the primary has wired: the error that a runtime reads, if it fails.
fn call(lab: &Lab, verb: &str, pod: &Pod) -> Option<Value> {
    let mut config = egret_config(lab, 1);
    config["cniVersion"] = pod.result["cniVersion"].clone();
    config["prevResult"] = pod.result.clone();
    let plugin = Path::new(env!("CARGO_BIN_EXE_egret"));
    let output = lab.plugin(plugin, verb, pod, &config.to_string()).unwrap();
    let read = || serde_json::from_slice(&output.stdout).unwrap();
    if output.status.success() { None } else { Some(read()) }
}

/// Addresses and owners, as `egret ipam show` has them, that a container holds or that are another pod's. One that a failed ADD could not
/// give back on the full disk waits for its pod's next ADD, as any does whose container is gone.
fn leases(lab: &Lab, new: &Pod) -> Vec<(Value, Value)> {
    let items = lab.json(1, &["ipam", "show"])["items"].take();
    let own = format!("pod:{}", new.uid);
    let counts = |lease: &&Value| lease["owner"] != own.as_str() || !lease["holder"].is_null();
    let items = items.as_array().unwrap().iter().filter(counts);
    items.map(|lease| (lease["address"].clone(), lease["owner"].clone())).collect()
}

/// ADDs of the pod with ever more free pages; how many failed.
fn fails_until_there_is_room(lab: &Lab, disk: &str, folder: &str, pod: &Pod, stays: &[&Pod]) -> u64 {
    let (before, leased, known) = (kernel(lab), leases(lab, pod), records(1));
    for free in 0..MOST {
        fill(disk);
        let filler = File::options().write(true).open(Path::new(disk).join(FILLER)).unwrap();
        let full = filler.metadata().unwrap().len();
        let rest = full
            .checked_sub(free * PAGE)
            .unwrap_or_else(|| panic!("{disk} was full of something else: {full} bytes were free"));
        filler.set_len(rest).unwrap();
        let refused = call(lab, "ADD", pod);
        let after = kernel(lab);
        // What a runtime does next, and nothing has become better.
        let torn_down = refused.as_ref().map(|_| call(lab, "DEL", pod));
        empty(disk);
        let Some(error) = refused else { return free };
        let (story, sentence) = (format!("{free} pages free on {disk}"), error["msg"].as_str().unwrap());
        assert_eq!(error["code"], 5, "{story}: {error}");
        for word in [folder, "No space left", "free space"] {
            assert!(sentence.contains(word), "{story}: no `{word}` in: {sentence}");
        }
        assert_eq!(after, before, "{story}: {sentence}");
        assert_eq!(torn_down, Some(None), "{story}: DEL");
        assert_eq!(records(1), known, "{story}");
        gc(lab, 1, Some(stays));
        assert_eq!(leases(lab, pod), leased, "{story}: {sentence}");
    }
    panic!("an ADD wants more than {MOST} pages of {disk}");
}

#[test]
fn a_disk_that_becomes_full_anywhere_in_an_add() {
    let lab = lab();
    // Wired by the primary alone so far: nothing of ours was ever written for it.
    lab.pod_object("gw/new", &[], &[], 1).unwrap();
    let new = lab.add_pod(1, "gw/new").unwrap();
    lab.pod_object("gw/new", &[("egress-code", "red")], &WANTS_LEASES, 1).unwrap();
    let story = |disk: &str, folder: &str, stays: &[&Pod], least: u64| {
        assert_eq!(call(&lab, "DEL", &new), None);
        let failed = fails_until_there_is_room(&lab, disk, folder, &new, stays);
        println!("{disk}, beside {} pods: an ADD failed at {failed} places", stays.len());
        assert!(failed >= least, "{disk}: only {failed} ADDs failed, so this shows little");
        assert_in_order(&lab, &[stays, &[&new]].concat(), disk);
    };
    story(STATE_DIR, STATE_DIR, &[], 4);
    let (gateway, client) = (lab.gateway(1, "g"), lab.client(1, "c"));
    story(STATE_DIR, STATE_DIR, &[&gateway, &client], 2);
    story("/run", RUN_DIR, &[&gateway, &client], 3);
    lab.leaves_as_predicted(&client);
    lab.del_pod(&new).unwrap();
    gc(&lab, 1, Some(&[&gateway, &client]));
    let left = lab.json(1, &["ipam", "show"])["items"].take();
    assert_eq!(
        left.as_array().unwrap().len(),
        lab.leases(&gateway).len(),
        "with its pod a lease ends: {left}"
    );
}
