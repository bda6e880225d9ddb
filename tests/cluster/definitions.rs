//! The API server takes our definitions, every good example, and no bad one; and it agrees with the readers of files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use egret::api::{Object, read};
use egret::testbed::{repository, within};

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

/// How long the server may have another definition than is written.
const A_WHILE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

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
        let say =
            || server.kubectl(&create, &text).map_or_else(|no| no.to_string(), |_| "nothing".to_owned());
        let mut said = say();
        // An earlier story may have changed this definition and put it back, which the server learns by a watch of its own.
        within(A_WHILE, LOOK, || {
            said.contains(sentence) || {
                said = say();
                false
            }
        });
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

/// Numbers that look like chance and are the same each time.
struct Dice(u64);

impl Dice {
    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        all[usize::try_from(self.0 >> 33).unwrap() % all.len()]
    }

    /// A map with some of these fields, each with one of its values; none where it is empty.
    fn map(&mut self, fields: &[(&str, &[&str])]) -> String {
        let some = fields.iter().map(|(key, values)| (key, self.of(values))).collect::<Vec<_>>();
        let written =
            some.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key}: {value}"));
        format!("{{{}}}", written.collect::<Vec<_>>().join(", "))
    }
}

const SELECTORS: &[&str] = &[
    "",
    "",
    "all()",
    "''",
    "' '",
    "has(a)",
    "\"a == 'b'\"",
    "\"a in {'b', 'c'}\"",
    "\"(a == 'b' || !has(c)) && d != 'e'\"",
    "\"a == '('\"",
    "\"(a == 'b'\"",
    "\"a = 'b'\"",
    "a",
    "\"a starts with 'b' &&\"",
    "'has (a)'",
    "\"a contains 'b'\"",
];
const CIDRS: &[&str] = &[
    "",
    "192.0.2.0/24",
    "192.0.2.0/24",
    "192.0.2.1",
    "0.0.0.0/0",
    "'::/0'",
    "'2001:db8::/32'",
    "192.0.2.0/33",
    "'::ffff:192.0.2.0/120'",
    "169.254.0.0/16",
    "ten",
    "''",
];

fn policy(dice: &mut Dice) -> String {
    let mut rules = Vec::new();
    for _ in 0..dice.of(&["0", "1", "1", "2"]).parse().unwrap() {
        let lists: &[&str] =
            &["", "", "", "[]", "[192.0.2.0/24]", "[198.51.100.7, '2001:db8::/48']", "[0.0.0.0/0]", "[ten]"];
        let destination = dice.map(&[("cidr", CIDRS), ("cidrs", lists)]);
        let node = dice.map(&[
            ("nodeSelector", SELECTORS),
            ("interface", &["", "", "eth1", "''", "'eth 1'", "a/b"]),
            ("egressIP", &["", "", "192.0.2.9", "''", "'192.0.2'", "'2001:db8::9'"]),
        ]);
        let nodes = dice.of(&["", "", "[]", "NODE"]).replace("NODE", &format!("[{node}]"));
        let gateway = dice.map(&[
            ("selector", SELECTORS),
            ("namespaceSelector", SELECTORS),
            ("maxNextHops", &["", "", "0", "2", "-1", "4294967295", "4294967296"]),
            ("nodes", &[&nodes]),
        ]);
        let destination = dice.of(&["", "D", "D"]).replace('D', &destination);
        let gateway = dice.of(&["", "G", "G"]).replace('G', &gateway);
        rules.push(dice.map(&[
            ("description", &["", "x"]),
            ("destination", &[&destination]),
            ("gateway", &[&gateway]),
            ("gatewayPreference", &["", "", "None", "PreferNodeLocal", "Near"]),
        ]));
    }
    let selection =
        dice.map(&[("selector", SELECTORS), ("namespaceSelector", SELECTORS), ("nodeSelector", SELECTORS)]);
    let selectors = dice.of(&["", "", "[]", "S"]).replace('S', &format!("[{selection}]"));
    dice.map(&[
        ("enforced", &["", "", "true", "false"]),
        ("selectors", &[&selectors]),
        ("rules", &[&format!("[{}]", rules.join(", "))]),
        ("excludedCIDRs", &["", "", "", "[]", "[203.0.113.7]", "[ten]"]),
        ("defaultAction", &["", "", "Allow", "Deny", "Drop"]),
        ("otherFamily", &["", "", "Hold", "Ignore", "hold"]),
    ])
}

fn pool(dice: &mut Dice) -> String {
    let ranges: &[&str] = &[
        "10.0.0.0/28",
        "10.0.0.0/28",
        "10.0.0.4/31",
        "10.0.0.7",
        "'2001:db8::/124'",
        "'2001:db8::7'",
        "10.0.0.1/28",
        "127.0.0.0/30",
        "'fe80::/64'",
        "'::/0'",
        "0.0.0.0/0",
        "255.255.255.255",
        "'::ffff:10.0.0.0/120'",
        "ten",
        "",
        "10.0.0.0/12",
    ];
    dice.map(&[
        ("cidr", ranges),
        ("blockSize", &["", "", "31", "32", "28", "26", "20", "19", "127", "128", "116", "0", "129"]),
        ("nodeSelector", SELECTORS),
        ("gatewayNamespaces", SELECTORS),
        ("clientNamespaces", SELECTORS),
        ("source", &["", "", "Pool", "PodAddress", "Cloud"]),
        ("natOutgoing", &["", "true"]),
        ("strictAffinity", &["", "true"]),
        ("announce", &["", "Auto", "None", "BGP"]),
        ("cooldownSeconds", &["", "0", "604800", "604801", "-1"]),
    ])
}

fn range(dice: &mut Dice) -> String {
    let one = dice.of(CIDRS);
    let two = dice.of(&[
        "10.244.0.0/16",
        "10.244.0.0/16",
        "'fd00::/8'",
        "10.244.0.1/16",
        "'fd00::1/8'",
        "10.0.0.1",
    ]);
    let all = [one, two].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
    format!("{{cidrs: [{}]}}", dice.of(&["A", "A", "A", ""]).replace('A', &all))
}

/// What costs the server more than it allows is left to the reader: a prefix that is there twice, in another spelling or inside `cidrs`. (And
/// parentheses that do not match beside others between quotes, which no selector here has.)
fn is_left_to_the_reader(text: &str) -> bool {
    let reading = read("bad.yaml", text.as_bytes());
    let Some(Object::Policy(policy)) = &reading.objects[0].object else { return false };
    !policy.unfit.is_empty() && policy.unfit.iter().all(|why| why.reason == "SameDestination")
}

#[test]
fn a_thousand_objects_by_chance_are_taken_by_the_server_if_and_only_if_a_reader_obeys_them() {
    let _alone = alone(); // definitions come and go in other stories
    let client = crate::world::client_of("admin");
    let mut dice = Dice(5);
    let (mut wrong, mut taken) = (Vec::new(), 0);
    for n in 0..1200 {
        let (kind, plural, spec) = match n % 3 {
            0 => ("EgressPool", "egresspools", pool(&mut dice)),
            1 => ("EgressGatewayPolicy", "egressgatewaypolicies", policy(&mut dice)),
            _ => ("EgressRange", "egressranges", range(&mut dice)),
        };
        let text = object(kind, &spec);
        let value: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
        let say = || client.create(&format!("/apis/egret.dev/v1alpha1/{plural}?dryRun=All"), &value);
        let obeyed = is_obeyed(&text);
        taken += usize::from(obeyed);
        let agree = |ok: bool| ok == obeyed || ok && is_left_to_the_reader(&text);
        let mut said = say();
        if wrong.is_empty() {
            within(A_WHILE, LOOK, || {
                agree(said.is_ok()) || {
                    said = say();
                    false
                }
            });
        }
        if !agree(said.is_ok()) {
            let problems = read("bad.yaml", text.as_bytes()).problems;
            wrong.push(format!(
                "{text}\n  server {:?}\n  reader {problems:?}",
                said.map(|_| "takes it").map_err(|e| e.to_string())
            ));
        }
    }
    assert!(taken > 100, "only {taken} are right, so little was shown");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.iter().take(12).cloned().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn a_gateway_of_both_families_is_shown_with_both_addresses() {
    let _alone = alone(); // definitions come and go in other stories
    let endpoint = "{apiVersion: egret.dev/v1alpha1, kind: EgressEndpoint, metadata: {name: both}, spec: {pod: shop/gw, attachment: net/c/eth0,
        node: there, underlay: [172.31.0.2], vni: 4098, mac: '02:67:0a:4d:00:00', state: ready, generation: 1,
        addresses: [{ip: 10.77.0.0, pool: p}, {ip: 'fd00::1', pool: p6}]}}";
    kubectl(&["apply", "-f", "-"], endpoint);
    let row = kubectl(&["get", "eep", "both", "--no-headers"], "");
    kubectl(&["delete", "eep", "both"], "");
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..6], ["both", "shop/gw", "there", "10.77.0.0", "fd00::1", "ready"], "{row}");
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
