//! The lab as a person uses it.

use std::process::{Command, Output};

/// `scripts/lab` with these words.
fn lab(words: &[&str]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab");
    Command::new(script).args(words).env("RUST_BACKTRACE", "0").output().unwrap()
}

fn said(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(said).unwrap()
}

#[test]
fn a_lab_stays_up_is_looked_into_and_goes_without_a_trace() {
    let name = format!("--name=test-{}", std::process::id());
    let up = lab(&["up", &name, "--nodes=2", "--masquerade=nft", "--primary=ptp", "--bare"]);
    assert!(up.status.success(), "{}", said(&up));
    assert!(said(&lab(&["up", &name])).contains("up already"));

    let curl = ["exec", &name, "demo/plain", "curl", "-s", "-m", "2", "http://198.51.100.100/"];
    assert_eq!(said(&lab(&curl)), "172.30.0.1\n");
    let added = lab(&["add", &name, "2", "shop/cart"]);
    assert!(said(&added).contains("shop/cart on node2: 10.60.2."), "{}", said(&added));
    let status = said(&lab(&["status", &name]));
    assert!(status.contains("shop/cart") && status.contains("fd00:172:30::2"), "{status}");
    assert_eq!(lab(&["exec", &name, "node1", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert!(said(&lab(&["exec", &name, "nowhere", "true"])).contains("demo/plain, shop/cart"));
    assert!(lab(&["del", &name, "shop/cart"]).status.success());

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab");
    let mut left_inside =
        Command::new(script).args(["exec", &name, "node1", "sleep", "1000"]).spawn().unwrap();
    // It is inside once its program is `sleep`: until then it may still be on its way.
    let path = format!("/proc/{}/comm", left_inside.id());
    while std::fs::read_to_string(&path).unwrap().trim() != "sleep" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(lab(&["down", &name]).status.success());
    assert!(!left_inside.wait().unwrap().success(), "down ends what `exec` left inside");
    assert!(said(&lab(&["status", &name])).contains("no such lab is up"));
    assert!(!std::path::Path::new("/run/egret-lab").join(&name["--name=".len()..]).exists());
}

#[test]
fn help_fits_a_screen_and_refusals_are_one_sentence() {
    let help = said(&lab(&["-h"]));
    assert!(help.lines().count() <= 24 && help.lines().all(|l| l.chars().count() <= 100), "{help}");
    let refused = Command::new("setpriv")
        .args(["--reuid=65534", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab"), "up"])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert_eq!(said(&refused).lines().count(), 1, "{}", said(&refused));
    assert!(said(&refused).contains("needs root"));
}
