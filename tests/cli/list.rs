//! `egret list` and `egret explain`, offline: a folder of manifests, perhaps with what nodes said of their interfaces.

use std::path::Path;

use serde_json::Value;

use crate::world::{Folder, Said};

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).display().to_string()
}

fn ask(arguments: &str) -> Said {
    Folder::with(&[]).egret(arguments)
}

/// The row of a pod and a destination.
fn row<'v>(report: &'v Value, pod: &str, destination: &str) -> &'v Value {
    let items = report["items"].as_array().unwrap();
    let found = items.iter().find(|row| row["pod"] == pod && row["destination"] == destination);
    found.unwrap_or_else(|| panic!("{pod} to {destination} in {report:#}"))
}

#[test]
fn a_folder_of_manifests_says_where_each_pod_leaves_and_by_what() {
    let said = ask(&format!("list --state {} -o json", example("shop")));
    let report = said.json();
    assert_eq!(
        (said.status, &report["kind"], &report["problems"]),
        (0, &"List".into(), &serde_json::json!([]))
    );
    let cart = row(&report, "shop/cart", "0.0.0.0/0");
    assert_eq!((&cart["action"], &cart["address"]), (&"gateway".into(), &"10.244.1.5".into()));
    assert_eq!(cart["gateways"][1]["egressAddress"], "10.10.10.1");
    assert_eq!(cart["gateways"][1]["nodeAddress"], "172.18.0.12");
    let bank = row(&report, "shop/cart", "198.51.100.0/24");
    assert_eq!(
        (&bank["gateways"][0]["egressAddress"], &bank["gateways"][0]["interface"]),
        (&"192.0.2.11".into(), &"eth1".into())
    );
    assert_eq!(bank["decidedBy"]["field"], "spec.rules[1]");
    assert_eq!(row(&report, "shop/cart", "203.0.113.9/32")["action"], "direct");
    let lost = row(&report, "media/lost", "203.0.113.0/24");
    assert!(
        lost["action"] == "held" && lost["reason"].as_str().unwrap().contains("role == \"none\""),
        "{lost}"
    );
    assert_eq!(row(&report, "media/bot", "0.0.0.0/0")["gateways"][0]["egressAddress"], "192.0.2.10");
    assert_eq!(row(&report, "default/plain", "0.0.0.0/0")["role"], "unselected");
}

#[test]
fn pods_are_filtered_by_name_namespace_labels_and_node() {
    let shop = example("shop");
    for (arguments, pods) in [
        ("-n media", vec!["media/bot", "media/lost"]),
        ("bot", vec!["media/bot"]),
        ("shop/cart default/plain", vec!["default/plain", "shop/cart"]),
        ("-l has(app)", vec!["media/bot", "media/lost", "shop/cart"]),
        ("--node worker-1", vec!["default/plain", "egress/gw-0", "shop/cart"]),
        ("-n nowhere", vec![]),
    ] {
        let report = ask(&format!("list --state {shop} -o json {arguments}")).json();
        let mut found: Vec<&str> =
            report["items"].as_array().unwrap().iter().map(|r| r["pod"].as_str().unwrap()).collect();
        found.dedup();
        assert_eq!(found, pods, "{arguments}");
    }
    assert_eq!(
        ask(&format!("list --state {shop} -n nowhere")).out,
        "no pod: of 6 that are known, none is what was asked for\n"
    );
}

#[test]
fn an_address_that_nobody_has_leased_is_not_guessed() {
    let said = ask(&format!("list my-client --state {}", example("calico-ippool")));
    assert!(said.out.contains("of 10.10.10.0/31") && said.out.contains("taken as running"), "{}", said.out);
    let report = ask(&format!("list my-client --state {} -o json", example("calico-ippool"))).json();
    let gateway = &row(&report, "my-namespace/my-client", "0.0.0.0/0")["gateways"][0];
    assert_eq!(
        (&gateway["pod"], &gateway["egressAddress"], &gateway["nodeAddress"]),
        (&"default/egress-gateway".into(), &Value::Null, &Value::Null)
    );
    let explained = ask(&format!(
        "explain my-namespace/my-client 192.0.2.9 --state {} -o json",
        example("calico-ippool")
    ))
    .json();
    assert_eq!(
        (&explained["items"][0]["sources"], &explained["items"][0]["action"]),
        (&serde_json::json!([]), &"gateway".into())
    );
}

#[test]
fn what_is_missing_or_torn_is_said_in_a_sentence() {
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {role: edge}}\nstatus: {addresses: [{type: InternalIP, address: 172.18.0.1}]}\n";
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumEgressGatewayPolicy\nmetadata: {name: p}\nspec: {selectors: [{podSelector: {}}], destinationCIDRs: [0.0.0.0/0], egressGateway: {nodeSelector: {matchLabels: {role: edge}}}}\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: cart, namespace: shop}\n";
    let files = [
        ("n.yaml", node),
        ("p.yaml", policy),
        ("c.yaml", pod),
        ("interfaces/n1.json", "[{\"ifname\":"),
        ("empty/x.txt", ""),
    ];
    let folder = Folder::with(&files);
    for (arguments, status, sentence) in [
        (
            "list --state empty",
            2,
            "egret: there is neither a manifest (.yaml, .yml, .json) nor a folder `objects` in empty",
        ),
        ("list --state nowhere", 2, "egret: cannot read nowhere: No such file or directory"),
        ("list --state . --node n2", 2, "egret: there is no Node `n2`, and no pod runs there; there are n1"),
        (
            "explain --state . --node other shop/cart",
            2,
            "egret: there is no Node `other`, and no pod runs there; there are n1",
        ),
        ("list --state . shop/crat", 1, "egret: there is no pod shop/crat; did you mean shop/cart?"),
        ("list --state . -l app=x", 2, "egret: --selector: "),
    ] {
        let said = folder.egret(arguments);
        assert_eq!((said.status, said.out.as_str()), (status, ""), "{arguments}: {}", said.err);
        assert!(said.err.contains(sentence), "{arguments}: {}", said.err);
    }
    // Nobody knows the node's addresses: held, and why; the file is named.
    let report = folder.egret("list --state . --node n1 -o json").json();
    assert_eq!(report["items"], serde_json::json!([]), "no pod runs there");
    let report = folder.egret("list --state . -o json").json();
    assert_eq!(row(&report, "shop/cart", "0.0.0.0/0")["action"], "held");
    let said: Vec<&str> =
        report["problems"].as_array().unwrap().iter().map(|p| p["message"].as_str().unwrap()).collect();
    assert!(said.iter().any(|message| message.contains("interfaces/n1.json cannot be read")), "{said:?}");
    folder.write(
        "interfaces/n1.json",
        r#"[{"ifname":"eth0","flags":["UP"],"addr_info":[{"local":"172.18.0.1","scope":"global"}]}]"#,
    );
    let report = folder.egret("list --state . -o json").json();
    assert_eq!(row(&report, "shop/cart", "0.0.0.0/0")["gateways"][0]["egressAddress"], "172.18.0.1");
}

#[test]
fn what_is_listed_before_and_after_converting_is_the_same() {
    for name in ["calico-ippool", "calico-guide", "cilium-guide", "shop"] {
        let folder = Folder::with(&[]);
        let yaml = folder.egret(&format!("convert -f {}", example(name))).out;
        folder.write("state/all.yaml", &yaml);
        let interfaces = Path::new(&example(name)).join("interfaces");
        for entry in std::fs::read_dir(interfaces).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            folder.write(&format!("state/interfaces/{}", entry.file_name().display()), &text);
        }
        let facts = |state: &str| {
            let report = folder.egret(&format!("list --state {state} -o json")).json();
            let items = report["items"].as_array().unwrap().clone();
            let of = |row: &Value| {
                ["pod", "address", "destination", "action", "gateways"]
                    .map(|key| row[key].to_string())
                    .join(" ")
            };
            let rows: Vec<String> = items.iter().filter(|row| row["action"] != "held").map(of).collect();
            (items.len(), rows)
        };
        let (before, after) = (facts(&example(name)), facts("state"));
        assert!(before.1.iter().any(|row| row.contains("\"gateway\"")), "{name}: {before:?}");
        assert_eq!(before, after, "{name}");
    }
}

/// Manifests as the documents of Calico and Cilium show them, and as their clusters print them: read as they are.
#[test]
fn documented_manifests_are_read_unchanged() {
    let known = ["OneFamily", "OpenPool", "NotServedYet", "Configuration"];
    for (name, most) in [
        ("calico-ippool", &known[..2]),
        ("calico-guide", &known[..]),
        ("cilium-guide", &known[..1]),
        ("policies", &known[..1]),
        ("shop", &known[..1]),
    ] {
        let said = ask(&format!("lint -f {} -o json", example(name)));
        let reasons = said.reasons();
        assert!(reasons.iter().all(|reason| most.contains(&reason.as_str())), "{name}: {}", said.out);
        assert!(!said.json()["items"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_destination_that_is_no_address_is_answered_with_what_to_write() {
    let folder =
        Folder::with(&[("c.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: cart, namespace: shop}\n")]);
    for (word, next) in [
        ("example.com", "not by name; write an address that the name leads to"),
        ("https://example.com/a", "not by name"),
        (
            "192.0.2.0/24",
            "it is a prefix, and the answer may differ inside it; write one address of it, as 192.0.2.0",
        ),
        ("0.0.0.0/0", "it is a prefix"),
        ("2001:db8::/32", "it is a prefix"),
        ("192.0.2.7:443", "rules are by address alone; write 192.0.2.7"),
        ("[2001:db8::1]:443", "write 2001:db8::1"),
        ("http://192.0.2.7/", "write 192.0.2.7"),
        ("fe80::1%eth0", "write fe80::1"),
        ("1.2.3", "it is no address; write one, as 203.0.113.9 or 2001:db8::9"),
    ] {
        let said = folder.egret(&format!("explain --state . shop/cart {word}"));
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{word}: {}", said.err);
        assert!(said.err.contains(next), "{word}: {}", said.err);
    }
    // It goes out as IPv4.
    let said = folder.egret("explain --state . shop/cart ::ffff:192.0.2.7 -o json").json();
    assert_eq!(said["items"][0]["destination"], "192.0.2.7");
}

#[test]
fn a_word_that_names_no_pod_is_misuse_and_a_forgotten_namespace_is_found() {
    let pod = |namespace: &str| {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: cart, namespace: {namespace}}}\n---\n")
    };
    let pods: String = ["a", "b", "c", "d"].iter().map(|namespace| pod(namespace)).collect();
    let folder = Folder::with(&[("c.yaml", &pods)]);
    for word in ["/cart", "a/", "a/b/cart", "/"] {
        let said = folder.egret(&format!("explain --state . {word} 192.0.2.7"));
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{word}: {}", said.err);
        assert!(said.err.contains("names no pod; write NAMESPACE/NAME"), "{word}: {}", said.err);
    }
    let said = folder.egret("explain --state . cart 192.0.2.7");
    assert_eq!(said.status, 1);
    assert!(said.out.contains("; of that name there are a/cart, b/cart, c/cart and 1 more."), "{}", said.out);
    let said = folder.egret("list --state . -n elsewhere");
    assert_eq!(said.out, "no pod: of 4 that are known, none is what was asked for\n");
}

#[test]
fn one_file_of_a_folder_that_cannot_be_read_is_named_and_the_rest_goes_on() {
    let folder = Folder::with(&[(
        "good.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: cart, namespace: shop}\n",
    )]);
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink("/nowhere/x", at("gone.yaml")).unwrap();
    std::fs::create_dir(at("deep")).unwrap();
    std::os::unix::fs::symlink("..", at("deep/up")).unwrap();
    nix::unistd::mkfifo(&at("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let wrong = [
        "./deep/up: the link leads to a directory that holds it; delete it",
        "./gone.yaml: the link leads to nothing; restore what it should lead to, or delete it",
        "./pipe.yaml: it is no file but a pipe, socket or device; delete it",
    ]
    .map(|line| line.trim_start_matches("./").to_owned());
    let said = folder.egret("list --state .");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.out.contains("shop/cart"), "{}", said.out);
    let said = [said, folder.egret("lint -f ."), folder.egret("convert -f .")];
    for (said, status) in said.iter().zip([0, 1, 1]) {
        assert_eq!(said.status, status, "{}{}", said.out, said.err);
        for line in &wrong {
            assert!(said.out.contains(line) || said.err.contains(line), "{line}: {}{}", said.out, said.err);
        }
    }
    assert!(said[2].out.contains("name: cart"), "{}", said[2].out);
}

#[test]
fn a_pod_that_exists_and_cannot_be_read_is_listed_as_held() {
    let number = "egress.projectcalico.org/maxNextHops: 2";
    let pod = |name: &str, annotations: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, annotations: {{{annotations}}}}}}}\n---\n"
        )
    };
    let folder = Folder::with(&[("pods.yaml", &(pod("good", "") + &pod("bad", number)))]);
    for arguments in ["list --state .", "list --state . bad", "list --state . -n shop"] {
        let said = folder.egret(&format!("{arguments} -o json"));
        let report = said.json();
        assert_eq!(said.status, 0, "{arguments}: {}", said.err);
        assert_eq!(row(&report, "shop/bad", "0.0.0.0/0")["action"], "held", "{arguments}: {report:#}");
        assert_eq!(row(&report, "shop/bad", "::/0")["action"], "held", "{arguments}: {report:#}");
    }
    for arguments in ["list --state . good", "list --state . -l all()"] {
        let said = folder.egret(arguments);
        assert!(
            said.out.contains("shop/good") && !said.out.contains("shop/bad  "),
            "{arguments}: {}",
            said.out
        );
    }
}

/// In Calico such a pod is redirected like any other; taken for a gateway it would leave with its own address.
#[test]
fn a_client_that_chooses_its_own_address_is_no_gateway_before_and_after_converting() {
    let text = r#"
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: red}, spec: {cidr: 192.0.2.0/31, blockSize: 32, nodeSelector: "!all()"}}
---
{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: special}, spec: {cidr: 10.245.0.0/16, blockSize: 26}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: cool, annotations: {cni.projectcalico.org/ipv4pools: '["special"]'}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gw, namespace: shop, labels: {app: red}, annotations: {cni.projectcalico.org/ipv4pools: '["red"]'}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart
  namespace: shop
  annotations: {cni.projectcalico.org/ipv4pools: '["special"]', egress.projectcalico.org/selector: app == 'red'}
status: {podIP: 10.245.0.7}
"#;
    let folder = Folder::with(&[("all.yaml", text)]);
    let found = row(&folder.egret("list --state . -o json").json(), "shop/cart", "0.0.0.0/0").clone();
    assert_eq!(
        (&found["action"], &found["role"], &found["gateways"][0]["pod"]),
        (&"gateway".into(), &"client".into(), &"shop/gw".into()),
        "{found:#}"
    );
    let said = folder.egret("lint -f .");
    assert!(said.out.contains("warning[OwnAddress]: all.yaml: Pod shop/cart: "), "{}", said.out);
    let converted = folder.egret("convert -f .").out;
    assert!(converted.contains("cni.projectcalico.org/ipv4pools: '[\"special\"]'"), "{converted}");
    assert!(converted.contains("kind: IPPool"), "a pool of pods' own addresses stays inside: {converted}");
    let after = Folder::with(&[("all.yaml", &converted)]).egret("list --state . -o json").json();
    let after = row(&after, "shop/cart", "0.0.0.0/0");
    assert_eq!((&after["action"], &after["gateways"]), (&found["action"], &found["gateways"]), "{converted}");
}

#[test]
fn ipam_of_a_folder_that_is_no_state_directory_is_no_empty_answer() {
    let folder = Folder::with(&[("notes.txt", "of something else")]);
    for verb in ["show", "check"] {
        let said = folder.egret(&format!("ipam {verb} --state ."));
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{}", said.err);
        assert!(said.err.contains("there is neither a folder `objects` nor `ipam` in ."), "{}", said.err);
    }
}
