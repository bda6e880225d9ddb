//! The lab as a person uses it.

use std::process::{Command, Output};

/// `scripts/lab` with these words.
fn lab(words: &[&str]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab");
    let mut command = Command::new(script);
    // As from a person's shell. What cargo tells a test of its package, build scripts of dependencies take for a change, and
    // `up`, and whoever builds next, would build them and all of Egret again.
    let of_cargo = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| of_cargo(name)) {
        command.env_remove(name);
    }
    command.args(words).env("RUST_BACKTRACE", "0").output().unwrap()
}

fn said(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(said).unwrap()
}

#[test]
fn a_lab_stays_up_is_looked_into_and_goes_without_a_trace() {
    let name = format!("--name=test-{}", std::process::id());
    let up = lab(&["up", &name, "--nodes=2", "--masquerade=nft", "--primary=ptp"]);
    assert!(up.status.success(), "{}", said(&up));
    assert!(said(&lab(&["up", &name])).contains("up already"));

    let curl = ["exec", &name, "demo/plain", "curl", "-s", "-m", "60", "http://198.51.100.100/"];
    assert_eq!(said(&lab(&curl)), "172.30.0.1\n");
    let added = lab(&["add", &name, "2", "shop/cart"]);
    assert!(said(&added).contains("shop/cart on node2: 10.60.2."), "{}", said(&added));
    let twice = lab(&["add", &name, "1", "shop/cart"]);
    assert!(!twice.status.success() && said(&twice).contains("there already, on node2"), "{}", said(&twice));
    let status = said(&lab(&["status", &name]));
    let tries = status.lines().filter(|line| line.contains("scripts/lab ")).count();
    assert!(
        tries >= 2
            && status.matches("scripts/lab ").count() == status.matches(&name.replace('=', " ")).count()
    );
    assert!(status.contains("shop/cart") && status.contains("fd00:172:30::2"), "{status}");
    assert_eq!(lab(&["exec", &name, "node1", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert!(said(&lab(&["exec", &name, "nowhere", "true"])).contains("demo/plain, shop/cart"));
    assert!(lab(&["del", &name, "shop/cart"]).status.success());
    // A client leaves by the gateway; without it, by nothing.
    let seen = |status: &str| -> Vec<String> {
        let row = status.lines().find(|line| line.starts_with("demo/client1 ")).unwrap();
        row.split_whitespace().skip(3).map(str::to_owned).collect()
    };
    let explained =
        said(&lab(&["exec", &name, "node1", "egret", "explain", "demo/client1", "198.51.100.100"]));
    let [v4, v6] = &seen(&status)[..] else { panic!("{status}") };
    assert!(explained.contains(&format!("seen outside as {v4}")), "{explained}\n{status}");
    assert!(v4.starts_with("10.10.10.") && v6.starts_with("fd00:10:10::"), "{status}");
    assert!(lab(&["del", &name, "demo/gateway"]).status.success());
    let held = said(&lab(&["status", &name]));
    assert_eq!(seen(&held).iter().filter(|word| *word == "nothing").count(), 2, "{held}");

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
