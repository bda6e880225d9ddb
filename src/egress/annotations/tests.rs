//! Values that objects may carry, and what is said of those that cannot be obeyed.

use proptest::prelude::*;

use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Pairs {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn refused(annotations: &[(&str, &str)]) -> String {
    let annotations = pairs(annotations);
    let found = ClientAnnotations::on(&annotations).unwrap();
    let problem = found.policies().err().or_else(|| found.query().err()).unwrap();
    format!("{} {}={}: {}", problem.reason, problem.field, problem.value, problem.message)
}

fn bad_request(annotations: &[(&str, &str)]) -> String {
    let problem = GatewayRequest::on(&pairs(annotations)).unwrap_err();
    format!("{}: {}", problem.reason, problem.message)
}

#[test]
fn our_twin_wins_over_calicos_on_one_object() {
    let both =
        pairs(&[("egret.dev/selector", "has(ours)"), ("egress.projectcalico.org/selector", "has(theirs)")]);
    let query = ClientAnnotations::on(&both).unwrap().query().unwrap();
    assert_eq!(
        query,
        GatewayQuery { pods: Selector::parse("has(ours)").unwrap(), namespaces: None, max_next_hops: None }
    );
    let found = SELECTOR.on(&both).unwrap();
    assert_eq!((found.name, found.value), ("egret.dev/selector", "has(ours)"));
}

#[test]
fn an_object_without_client_annotations_asks_for_nothing() {
    assert_eq!(ClientAnnotations::on(&pairs(&[("egret.dev/gateway", "true"), ("a", "b")])), None);
}

#[test]
fn a_namespace_selector_alone_means_all_pods_there_and_an_empty_selector_means_all() {
    let alone = pairs(&[("egress.projectcalico.org/namespaceSelector", "team == 'net'")]);
    let empty =
        pairs(&[("egress.projectcalico.org/namespaceSelector", "team=='net'"), ("egret.dev/selector", "")]);
    let query = ClientAnnotations::on(&alone).unwrap().query().unwrap();
    assert_eq!(query.pods, Selector::all());
    assert_eq!(query, ClientAnnotations::on(&empty).unwrap().query().unwrap());
}

#[test]
fn a_limit_of_zero_is_no_limit() {
    for (value, expected) in [("0", None), ("2", Some(2))] {
        let limited = pairs(&[("egret.dev/selector", "has(a)"), ("egret.dev/maxNextHops", value)]);
        assert_eq!(ClientAnnotations::on(&limited).unwrap().query().unwrap().max_next_hops, expected);
    }
}

#[test]
fn policies_are_one_name_or_names_with_commas_or_a_json_list() {
    for (value, expected) in
        [("internet", vec!["internet"]), (" b , a,b", vec!["b", "a"]), (r#"["a", "b.c"]"#, vec!["a", "b.c"])]
    {
        let annotations = pairs(&[("egress.projectcalico.org/egressGatewayPolicy", value)]);
        assert_eq!(ClientAnnotations::on(&annotations).unwrap().policies().unwrap(), expected, "{value}");
    }
    let none = pairs(&[("egret.dev/selector", "has(a)")]);
    assert_eq!(ClientAnnotations::on(&none).unwrap().policies().unwrap(), Vec::<String>::new());
}

#[test]
fn a_list_of_policies_that_makes_no_sense_is_named() {
    for (value, expected) in [
        ("", "BadValue: `` is no name of an EgressGatewayPolicy: write one such as internet, or `a, b`"),
        ("a,", "BadValue: `` is no name of"),
        ("a b", "BadValue: `a b` is no name of"),
        ("[]", "BadValue: it names no policy: write one or remove the annotation"),
        ("[1]", "BadValue: `[1]` is not a JSON list of texts such as"),
    ] {
        let annotations = pairs(&[("egret.dev/egressGatewayPolicy", value)]);
        let problem = ClientAnnotations::on(&annotations).unwrap().policies().unwrap_err();
        let said = format!("{}: {}", problem.reason, problem.message);
        assert!(said.starts_with(expected), "{value}: {said}");
    }
}

#[test]
fn what_cannot_be_obeyed_is_said_with_field_and_value() {
    let selector = ("egress.projectcalico.org/selector", "has(a)");
    let hops = |value| ("egress.projectcalico.org/maxNextHops", value);
    let policy = ("egress.projectcalico.org/egressGatewayPolicy", "internet");
    for (annotations, expected) in [
        (
            vec![("egress.projectcalico.org/selector", "a = 'b'")],
            "SelectorSyntax metadata.annotations[\"egress.projectcalico.org/selector\"]=a = 'b': \
             the selector does not parse at character 3: a single `=` is no operator; write `==`",
        ),
        (
            vec![selector, policy],
            "SelectorAndPolicy metadata.annotations[\"egress.projectcalico.org/egressGatewayPolicy\"]=internet: \
             `egress.projectcalico.org/egressGatewayPolicy` stands beside `egress.projectcalico.org/selector`, \
             and only one of them can hold: remove one",
        ),
        (
            vec![policy, hops("2")],
            "MaxNextHopsAlone metadata.annotations[\"egress.projectcalico.org/maxNextHops\"]=2: it limits a selector: \
             write maxNextHops into the rules of the policy instead",
        ),
        (
            vec![selector, hops("two")],
            "BadValue metadata.annotations[\"egress.projectcalico.org/maxNextHops\"]=two: `two` is not a whole number \
             such as \"2\"; \"0\" means all gateways",
        ),
        (
            vec![hops("0")],
            "MaxNextHopsAlone metadata.annotations[\"egress.projectcalico.org/maxNextHops\"]=0: it limits a selector, \
             and this object has none: add `egret.dev/selector`",
        ),
    ] {
        assert_eq!(refused(&annotations), expected);
    }
}

#[test]
fn pools_are_a_json_list_of_names_and_prefixes_or_one_bare_name() {
    for (value, expected) in [
        (
            r#"["a", "10.10.10.0/31"]"#,
            vec![PoolRef::Name("a".into()), PoolRef::Cidr("10.10.10.0/31".parse().unwrap())],
        ),
        (" a ", vec![PoolRef::Name("a".into())]),
        ("10.10.10.0/31", vec![PoolRef::Cidr("10.10.10.0/31".parse().unwrap())]),
    ] {
        let annotations = pairs(&[("cni.projectcalico.org/ipv4pools", value)]);
        let request = GatewayRequest::on(&annotations).unwrap().unwrap();
        assert_eq!(request.pools[&Family::V4].1, expected, "{value}");
    }
    assert_eq!(
        GatewayRequest::on(&pairs(&[("egret.dev/ipv4pools", "[]")])).unwrap(),
        None,
        "asks for nothing"
    );
}

#[test]
fn addresses_come_one_per_family_with_commas_or_as_a_json_list() {
    for value in ["10.10.10.1, fd00:10::1", r#"["fd00:10::1","10.10.10.1"]"#] {
        let annotations = pairs(&[("egret.dev/address", value)]);
        let (_, addresses) = GatewayRequest::on(&annotations).unwrap().unwrap().addresses.unwrap();
        assert_eq!(addresses[&Family::V4], "10.10.10.1".parse::<IpAddr>().unwrap());
        assert_eq!(addresses[&Family::V6], "fd00:10::1".parse::<IpAddr>().unwrap());
    }
}

#[test]
fn false_is_no_gateway_whatever_pools_it_names() {
    let annotations =
        pairs(&[("egret.dev/gateway", "false"), ("cni.projectcalico.org/ipv4pools", "[\"a\"]")]);
    assert_eq!(GatewayRequest::on(&annotations).unwrap(), None);
}

#[test]
fn a_gateways_values_that_make_no_sense_are_named() {
    for (name, value, expected) in [
        ("egret.dev/gateway", "yes", "BadValue: `yes` is neither \"true\" nor \"false\""),
        (
            "egret.dev/ipv4pools",
            "a,b",
            "BadValue: `a,b` is neither a JSON list such as [\"egress-1\"] nor one bare name",
        ),
        (
            "egret.dev/ipv4pools",
            "[1]",
            "BadValue: `[1]` is not a JSON list of texts such as [\"egress-1\"]: ",
        ),
        ("egret.dev/ipv4pools", "[\"\"]", "BadValue: an empty text names no pool"),
        (
            "egret.dev/ipv4pools",
            "10.10.10.1/31",
            "BadValue: `10.10.10.1/31` has bits set below its prefix length; did you mean 10.10.10.0/31?",
        ),
        ("egret.dev/address", "ten", "BadValue: `ten` is not an address such as 10.10.10.0 or fd00:10::1"),
        (
            "egret.dev/address",
            "10.0.0.1,10.0.0.2",
            "BadValue: asks for two IPv4 addresses, and a gateway has one",
        ),
        ("egret.dev/address", "[]", "BadValue: asks for no address"),
    ] {
        let found = bad_request(&[(name, value)]);
        assert!(found.starts_with(expected), "{name}={value}: {found}");
    }
}

#[test]
fn annotations_that_nobody_reads_are_named_with_the_likely_ones() {
    let slips = pairs(&[
        ("egret.dev/selctor", "x"),
        ("egress.projectcalico.org/nameSpaceSelector", "x"),
        ("egress.projectcalico.org/gatewayMaintenanceGatewayIP", "10.0.0.1"),
        ("cni.projectcalico.org/egress-gateway.selector", "x"),
        ("egret.dev/selector", "has(a)"),
        ("example.com/selector", "x"),
    ]);
    let said: Vec<String> = unread(&slips).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "metadata.annotations[\"egret.dev/selctor\"]: \
             nobody reads this annotation; did you mean `egret.dev/selector`?",
            "metadata.annotations[\"egress.projectcalico.org/nameSpaceSelector\"]: \
             nobody reads this annotation; did you mean `egress.projectcalico.org/namespaceSelector`?",
            "metadata.annotations[\"cni.projectcalico.org/egress-gateway.selector\"]: \
             nobody reads this annotation; did you mean `egress.projectcalico.org/selector`?",
        ]
    );
}

proptest! {
    #[test]
    fn any_value_gives_a_wish_or_a_problem_that_names_it(
        values in prop::collection::vec("[a-z0-9\\[\\]\",/:. ]{0,12}", 8)
    ) {
        let annotations: Pairs = ALL.iter().zip(&values).map(|(a, v)| (a.name().to_owned(), v.clone())).collect();
        if let Some(Err(problem)) = ClientAnnotations::on(&annotations).map(|client| client.query()) {
            prop_assert!(values.contains(&problem.value) && !problem.field.is_empty());
        }
        if let Err(problem) = GatewayRequest::on(&annotations) {
            prop_assert!(values.contains(&problem.value) && !problem.field.is_empty());
        }
    }
}
