//! `egret lint`: manifests that nobody has applied yet.

use crate::world::Folder;

const SHOP: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

const POOL: &str = "
apiVersion: egret.dev/v1alpha1
kind: EgressPool
metadata: {name: egress}
spec: {cidr: 10.10.10.0/28, gatewayNamespaces: all()}
";

const GATEWAY: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: gw, namespace: shop}
spec:
  template:
    metadata: {labels: {app: gateway}, annotations: {egret.dev/ipv4pools: '[\"egress\"]'}}
    spec: {}
";

fn client(selector: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: cart, namespace: shop, annotations: {{egret.dev/selector: \"{selector}\"}}}}\n"
    )
}

#[test]
fn a_right_world_is_right_and_what_is_not_ours_is_passed_over() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
    let folder = Folder::with(&[
        ("shop.yaml", SHOP),
        ("deep/in/pool.yml", POOL),
        ("gw.yaml", GATEWAY),
        ("cart.yaml", &client("app == 'gateway'")),
        ("service.yaml", service),
        ("notes.txt", "not a manifest"),
        (".hidden.yaml", "kind: ["),
    ]);
    let said = folder.egret("lint -f .");
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    assert!(said.out.starts_with("4 objects in 5 files: nothing wrong\n"), "{}", said.out);
    assert!(said.out.contains("passed over, as Egret does not read them: 1 Service"), "{}", said.out);
    let json = folder.egret("lint -f . -o json").json();
    assert_eq!(json["kind"], "LintReport");
    assert_eq!(json["items"].as_array().unwrap().len(), 4);
    assert_eq!(json["items"][2]["object"], "StatefulSet shop/gw");
    assert_eq!((&json["problems"], &json["skipped"]["Service"]), (&serde_json::json!([]), &1.into()));
}

#[test]
fn what_nodes_said_of_their_interfaces_is_no_manifest_at_any_depth_and_a_manifest_beside_it_is_one() {
    let folder = Folder::with(&[
        ("shop.yaml", SHOP),
        ("interfaces/n1.json", "[{\"ifname\": \"eth1\"}]"),
        ("worlds/one/interfaces/n1.json", "[{\"ifname\": \"eth1\"}]"),
        ("worlds/one/interfaces/n2.json", "{\"links\": []}"),
        (
            "worlds/one/interfaces/pool.json",
            "{\"apiVersion\": \"egret.dev/v1alpha1\", \"kind\": \"EgressPool\", \"metadata\": {\"name\": \"p\"}}",
        ),
        ("worlds/two.json", "[1]"),
    ]);
    let said = folder.egret("lint -f . -o json").json();
    let problems = said["problems"].as_array().unwrap();
    let told = |problem: &serde_json::Value| {
        format!("{} {}", problem["file"].as_str().unwrap(), problem["reason"].as_str().unwrap())
    };
    assert_eq!(
        problems.iter().map(told).collect::<Vec<_>>(),
        ["worlds/one/interfaces/pool.json MissingField", "worlds/two.json NotAnObject"]
    );
    assert_eq!(
        folder.egret("lint -f worlds/one/interfaces/n1.json").status,
        1,
        "a file that is named is read"
    );
}

#[test]
fn a_selector_that_matches_no_gateway_among_the_manifests_is_told_but_no_error() {
    let folder =
        Folder::with(&[("pool.yaml", POOL), ("gw.yaml", GATEWAY), ("cart.yaml", &client("app == 'gatway'"))]);
    let said = folder.egret("lint -f . -o json");
    assert_eq!((said.status, said.reasons()), (0, vec!["NoGateway".to_owned()]), "{}", said.out);
    assert_eq!(said.json()["problems"][0]["severity"], "warning");
    assert_eq!(folder.egret("lint --strict -f .").status, 1);
    // Where no gateway is among the manifests, they may be anywhere.
    std::fs::remove_file(folder.path().join("gw.yaml")).unwrap();
    assert_eq!(folder.egret("lint --strict -f .").status, 0);
}

#[test]
fn what_holds_all_traffic_is_said_of_the_policy_that_decides_and_not_of_the_annotation_that_does_not() {
    let policy = "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: internet}\nspec:\n  enforced: true\n  \
                  selectors: [{selector: all()}]\n  rules: [{gateway: {selector: app == 'blue'}}]\n";
    let folder = Folder::with(&[
        ("pool.yaml", POOL),
        ("gw.yaml", GATEWAY),
        ("cart.yaml", &client("app == 'gateway'")),
        ("policy.yaml", policy),
    ]);
    let said = folder.egret("lint -f . -o json").json();
    let told = |problem: &serde_json::Value| {
        format!("{} {}", problem["reason"].as_str().unwrap(), problem["object"].as_str().unwrap())
    };
    let told: Vec<_> = said["problems"].as_array().unwrap().iter().map(told).collect();
    assert_eq!(told, ["NoGateway EgressGatewayPolicy internet"], "{said}");
}

#[test]
fn errors_name_file_object_field_and_the_way_out() {
    let slip = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop, annotations: {egret.dev/selctor: all()}}\n";
    let files = [("cart.yaml", client("app = 'gw'")), ("slip.yaml", slip.to_owned())];
    let folder = Folder::with(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    let said = folder.egret("lint -f cart.yaml -f slip.yaml");
    assert_eq!(said.status, 1);
    let expected = "\
error[SelectorSyntax]: cart.yaml: Pod shop/cart: metadata.annotations[\"egret.dev/selector\"]: the selector does not parse at character 5: a single `=` is no operator; write `==`
  app = 'gw'
      ^ a single `=` is no operator; write `==`
error[UnknownAnnotation]: slip.yaml: Pod shop/a: metadata.annotations[\"egret.dev/selctor\"]: nobody reads this annotation; did you mean `egret.dev/selector`?
2 objects in 2 files: 2 errors
";
    assert_eq!(said.out, expected);
}

#[test]
fn a_namespace_is_looked_at_although_no_pod_of_it_is_shown() {
    let namespace =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {egret.dev/selector: 'a ='}}\n";
    let said = Folder::with(&[("ns.yaml", namespace)]).egret("lint -f ns.yaml -o json");
    assert_eq!((said.status, said.reasons()), (1, vec!["SelectorSyntax".to_owned()]));
    assert_eq!(said.json()["items"][0]["verdict"], "error");
}

#[test]
fn a_template_on_its_nodes_network_cannot_be_selected() {
    let deployment = "
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec:
  jobTemplate:
    spec:
      template:
        metadata: {annotations: {egret.dev/selector: all(), egret.dev/selctor: all()}}
        spec: {hostNetwork: true}
";
    let said = Folder::with(&[("job.yaml", deployment)]).egret("lint -f job.yaml -o json");
    let json = said.json();
    assert_eq!(said.status, 1);
    for problem in json["problems"].as_array().unwrap() {
        assert_eq!(problem["object"], "CronJob shop/nightly");
    }
    let fields: Vec<&str> =
        json["problems"].as_array().unwrap().iter().filter_map(|p| p["field"].as_str()).collect();
    assert!(
        fields.contains(&"spec.jobTemplate.spec.template.metadata.annotations[\"egret.dev/selctor\"]"),
        "{fields:?}"
    );
    assert!(said.reasons().contains(&"HostNetworkSelected".to_owned()), "{}", said.out);
}

#[test]
fn pools_that_overlap_doubles_and_calicos_open_pools_are_told() {
    let ip_pool = |name: &str, cidr: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}, blockSize: 31}}\n"
        )
    };
    let [a, b] = [ip_pool("a", "10.0.0.0/24"), ip_pool("b", "10.0.0.128/25")];
    let folder = Folder::with(&[("1.yaml", &a), ("2.yaml", &b), ("3.yaml", &a)]);
    let said = folder.egret("lint -f . -o json");
    let mut reasons = said.reasons();
    reasons.sort();
    assert_eq!(
        (said.status, reasons),
        (1, ["Duplicate", "OpenPool", "PoolOverlap"].map(str::to_owned).to_vec())
    );
}

/// They are no objects, and would be missed: Felix's other settings are nobody's business here.
#[test]
fn settings_of_egress_in_a_felix_configuration_are_told_with_their_place() {
    let felix = |spec: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
        )
    };
    let folder = Folder::with(&[
        ("a.yaml", &felix("egressIPSupport: EnabledPerNamespace, bpfEnabled: false")),
        ("b.yaml", &felix("bpfEnabled: false")),
        ("state/objects/a.yaml", &felix("egressIPSupport: EnabledPerNamespace, egressIPVXLANVNI: 4097")),
    ]);
    let said = folder.egret("lint -f a.yaml -f b.yaml");
    let sentence = "warning[Configuration]: a.yaml: FelixConfiguration default: spec.egressIPSupport: it belongs into Egret's configuration, \
                    as `egressIPSupport`: EnabledPerNamespace";
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains(sentence) && said.out.contains("1 warning"), "{}", said.out);
    assert!(said.out.contains("1 FelixConfiguration"), "the second is passed over: {}", said.out);
    assert_eq!(folder.egret("lint --strict -f a.yaml").status, 1);
    // And as a node reads its directory, the agent among them.
    let said = folder.egret("list --state state --node n1 -o json");
    assert_eq!(said.reasons(), ["Configuration", "Configuration"], "{}", said.out);
}

#[test]
fn bad_input_is_a_sentence_and_its_own_status() {
    let folder = Folder::with(&[
        ("empty/notes.txt", "x"),
        ("bad.yaml", "a: [1,\n"),
        ("none.yaml", ""),
        ("bin.json", "{\"a\": \u{1}"),
    ]);
    for (arguments, sentence) in [
        ("lint -f nowhere.yaml", "egret: cannot read nowhere.yaml: No such file or directory"),
        ("lint -f empty", "egret: there is no .yaml, .yml or .json file in empty"),
        ("lint", "egret: there is nothing to read: name manifests with -f, or a cluster with --kubeconfig"),
        ("lint -f bad.yaml --config nowhere.conf", "nowhere.conf"),
    ] {
        let said = folder.egret(arguments);
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{arguments}: {}", said.err);
        assert!(said.err.contains(sentence), "{arguments}: {}", said.err);
    }
    for (file, reason) in [("bad.yaml", "NotYaml"), ("none.yaml", "EmptyFile"), ("bin.json", "NotJson")] {
        let said = folder.egret(&format!("lint -f {file} -o json"));
        assert_eq!((said.status, said.reasons()), (1, vec![reason.to_owned()]), "{}", said.out);
    }
}

#[test]
fn standard_input_may_be_yaml_or_json_and_a_thousand_objects_take_no_time() {
    let folder = Folder::with(&[]);
    assert_eq!(folder.egret_with("lint -f -", SHOP).out, "1 object in 1 file: nothing wrong\n");
    for (braces, said) in [
        ("\n{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n", "1 object in 1 file: nothing wrong\n"),
        (
            "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"a\"}}\n---\n\
             {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n",
            "2 objects in 1 file: nothing wrong\n",
        ),
    ] {
        assert_eq!(
            folder.egret_with("lint -f -", braces).out,
            said,
            "YAML may be written in braces: {braces}"
        );
    }
    assert!(folder.egret_with("lint -f -", "{\"apiVersion\": \"v1\",").out.contains("not JSON"));
    let pod = |i: usize| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("p{i}"), "namespace": "shop", "annotations": {"egret.dev/selector": "app == 'gateway'"}},
        })
    };
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": (0..1000).map(pod).collect::<Vec<_>>()});
    let start = std::time::Instant::now();
    let said = folder.egret_with("lint -f -", &list.to_string());
    assert_eq!(
        (said.status, said.out.as_str()),
        (0, "1000 objects in 1 file: nothing wrong\n"),
        "{}",
        said.err
    );
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn what_is_wrong_with_a_policy_is_said_once_of_it_and_once_of_who_names_it() {
    let policy = |name: &str, more: &str| {
        format!(
            "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {{name: {name}}}\nspec: {{{more}, rules: [{{gateway: {{nodes: []}}}}]}}\n---\n"
        )
    };
    let pod = |name: &str, annotations: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{namespace: shop, name: {name}, labels: {{app: {name}}}, annotations: {{{annotations}}}}}}}\n---\n"
        )
    };
    let text = policy("selecting", "selectors: [{selector: app == 'cart'}]")
        + &policy("named", "description: x")
        + &pod("cart", "")
        + &pod("pay", "egret.dev/egressGatewayPolicy: named")
        + &pod("gw", "egret.dev/ipv4pools: red")
        + "{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: red}, spec: {cidr: 192.0.2.0/31, gatewayNamespaces: all()}}\n";
    let said = Folder::with(&[("all.yaml", &text)]).egret("lint -f .");
    let count = |what: &str| said.out.matches(what).count();
    assert_eq!(
        count("has 0 entries; write from 1 to 64"),
        3,
        "two policies and the pod that names one: {}",
        said.out
    );
    assert_eq!((count("error[PolicyUnfit]"), count("[NoGateway]")), (1, 0), "{}", said.out);
}

#[test]
fn no_colours_where_nobody_sees_them() {
    let folder = Folder::with(&[("cart.yaml", &client("a ="))]);
    assert!(!folder.egret("lint -f .").out.contains('\x1b'));
}

#[test]
fn what_steers_egress_elsewhere_and_has_no_effect_here_is_never_passed_over() {
    let kinds = [
        ("projectcalico.org/v3", "ExternalNetwork"),
        ("projectcalico.org/v3", "IPReservation"),
        ("operator.tigera.io/v1", "EgressGateway"),
        ("cilium.io/v2alpha1", "CiliumEgressNATPolicy"),
        ("isovalent.com/v1", "IsovalentEgressGatewayPolicy"),
    ];
    for (version, kind) in kinds {
        let text =
            format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, namespace: y}}\nspec: {{}}\n");
        let folder = Folder::with(&[("x.yaml", &text)]);
        let said = folder.egret("lint -f x.yaml");
        assert_eq!(said.status, 1, "{}", said.out);
        let sentence = format!("{kind} is not served yet and has no effect; ");
        assert!(said.out.contains(&sentence), "{}", said.out);
        let said = folder.egret("convert -f x.yaml");
        assert!(said.err.contains("note[NoEqual]"), "{}", said.err);
    }
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: gw\n  namespace: y\n  annotations:\n    egress.projectcalico.org/externalNetworkNames: '[\"n\"]'\n    cni.projectcalico.org/awsElasticIPs: '[\"192.0.2.1\"]'\n    egress.projectcalico.org/gatewayMaintenanceGatewayIP: 192.0.2.1\n";
    let folder = Folder::with(&[("gw.yaml", pod)]);
    let said = folder.egret("lint -f gw.yaml -o json");
    assert_eq!(said.reasons(), ["UnknownAnnotation", "UnknownAnnotation"], "{}", said.out);
}

#[test]
fn a_field_of_a_calico_pool_that_nobody_knows_is_told_and_calicos_own_are_not() {
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.0.0.0/24, blockSize: 31, allowedUses: [Workload], awsSubnetID: s, disableBGPExport: true, ipipMode: Never, vxlanMode: Never, disable: true, nat-outgoing: true}\n";
    let folder = Folder::with(&[("p.yaml", pool)]);
    let said = folder.egret("lint -f p.yaml");
    let unknown: Vec<&str> = said.out.lines().filter(|line| line.contains("UnknownField")).collect();
    assert_eq!(unknown.len(), 2, "{}", said.out);
    for hint in ["did you mean `disabled`?", "did you mean `natOutgoing`?"] {
        assert!(said.out.contains(hint), "{}", said.out);
    }
}

#[test]
fn a_label_of_ciliums_identity_is_an_error_because_it_would_match_no_pod() {
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumEgressGatewayPolicy\nmetadata: {name: p}\nspec:\n  selectors: [{podSelector: {matchLabels: {\"k8s:io.cilium.k8s.policy.serviceaccount\": pay}}}]\n  destinationCIDRs: [0.0.0.0/0, \"::/0\"]\n  egressGateway: {nodeSelector: {}}\n";
    let folder = Folder::with(&[("p.yaml", policy)]);
    let said = folder.egret("lint -f p.yaml");
    assert_eq!(said.status, 1, "{}", said.out);
    assert!(said.out.contains("is no label of the pod but of Cilium's identity"), "{}", said.out);
}
