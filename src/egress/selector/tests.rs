//! The grammar by examples, then by properties over every expression and every text.

use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Pairs {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn canonical(text: &str) -> String {
    Selector::parse(text).unwrap_or_else(|e| panic!("{e}")).to_string()
}

fn matches(text: &str, pairs: &[(&str, &str)]) -> bool {
    Selector::parse(text).unwrap_or_else(|e| panic!("{e}")).matches(&labels(pairs))
}

/// The two lines of an error.
fn error(text: &str) -> String {
    Selector::parse(text).expect_err(text).to_string()
}

#[test]
fn nothing_written_selects_everything() {
    for text in ["", " ", " \t", "all()", "all( )", "global()", "global(\t)"] {
        assert!(matches(text, &[]), "{text:?}");
    }
    assert_eq!(Selector::parse("").unwrap(), Selector::all());
}

#[test]
fn a_missing_label_is_unequal_and_outside_of_every_set_and_has_no_parts() {
    let missing = [
        ("a == 'x'", false),
        ("a in {'x'}", false),
        ("a contains 'x'", false),
        ("a starts with ''", false),
        ("a ends with ''", false),
        ("has(a)", false),
        ("a != 'x'", true),
        ("a not in {'x'}", true),
        ("a in {}", false),
        ("a not in {}", true),
    ];
    for (text, expected) in missing {
        assert_eq!(matches(text, &[("b", "x")]), expected, "{text}");
    }
}

#[test]
fn a_present_label_is_compared() {
    for text in [
        "a == 'blue'",
        "a != 'red'",
        "a contains 'lu'",
        "a starts with 'bl'",
        "a ends with 'ue'",
        "a in {'red', 'blue'}",
        "a not in {'red',}",
        "has(a)",
        "has( a )",
        "!has(b)",
        "!!has(a)",
        "!b == 'x'",
        "b == 'x' || a == 'blue' && !has(c)",
        "(b == 'x' || a == 'blue') && !has(c)",
    ] {
        assert!(matches(text, &[("a", "blue")]), "{text}");
        assert!(!matches(&format!("!({text})"), &[("a", "blue")]), "not {text}");
    }
}

#[test]
fn words_are_operators_only_behind_a_label() {
    assert!(matches("in in {'in'}", &[("in", "in")]));
    assert!(matches("has == 'x' && all == 'y'", &[("has", "x"), ("all", "y")]));
    assert!(matches("not not in {'x'}", &[("not", "y")]));
    assert!(matches("contains contains\"x\"", &[("contains", "axb")]));
    assert!(matches("has(has)", &[("has", "")]));
    assert!(matches("a startswith 'x' && a endswith 'y' && a notin{'z'}", &[("a", "xy")]));
    assert!(matches("a=='x'&&b!=\"y\"", &[("a", "x")]));
    assert!(matches("\ta\t==\t'x'\t", &[("a", "x")]));
}

#[test]
fn an_and_binds_stronger_than_an_or() {
    assert_eq!(canonical("has(a) || has(b) && has(c)"), "has(a) || has(b) && has(c)");
    assert_eq!(canonical("(has(a) || has(b)) && has(c)"), "(has(a) || has(b)) && has(c)");
}

#[test]
fn spellings_of_one_expression_are_one() {
    for (text, expected) in [
        ("a=='x'", r#"a == "x""#),
        (r#"a == 'say "x"'"#, r#"a == 'say "x"'"#),
        ("((a == 'x'))", r#"a == "x""#),
        ("(has(a) && has(b)) && has(c)", "has(a) && has(b) && has(c)"),
        ("has(a) || (has(b) || has(c))", "has(a) || has(b) || has(c)"),
        ("has(a) || (has(b) && has(c))", "has(a) || has(b) && has(c)"),
        ("!(!has(a))", "has(a)"),
        ("!!!has(a)", "!has(a)"),
        ("!a in {'b'}", r#"!a in {"b"}"#),
        ("!(has(a) && has(b))", "!(has(a) && has(b))"),
        ("a notin {'y','x','y'}", r#"a not in {"x", "y"}"#),
        ("a startswith 'x'", r#"a starts with "x""#),
        ("", "all()"),
        ("global( )", "global()"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn a_namespace_is_known_by_its_name_whatever_its_labels_say() {
    let lies = labels(&[("projectcalico.org/name", "other"), ("team", "a")]);
    let red = NamespaceLabels { name: "red", labels: Some(&lies) };
    let bare = NamespaceLabels { name: "red", labels: None };
    for namespace in [&red, &bare] {
        assert!(Selector::parse("projectcalico.org/name == 'red'").unwrap().matches(namespace));
        assert!(Selector::parse("kubernetes.io/metadata.name in {'red'}").unwrap().matches(namespace));
        assert!(Selector::parse("all()").unwrap().matches(namespace));
        assert!(!Selector::parse("global()").unwrap().matches(namespace), "no pod lies in no namespace");
    }
    assert!(Selector::parse("team == 'a'").unwrap().matches(&red));
}

#[test]
fn a_pod_carries_its_namespace_as_calico_adds_it() {
    let pod = PodLabels { namespace: "red", labels: None };
    assert!(Selector::parse("projectcalico.org/namespace == 'red'").unwrap().matches(&pod));
}

#[test]
fn an_error_points_at_the_character() {
    for (text, expected) in [
        ("a = 'b'", "a = 'b'\n  ^ a single `=` is no operator; write `==`"),
        ("a == b", "a == b\n     ^ expected a value in quotes, such as 'blue'"),
        ("a == 'b", "a == 'b\n     ^ this quote is never closed"),
        ("a == 'b' & has(c)", "a == 'b' & has(c)\n         ^ a single `&` is no operator; write `&&`"),
        ("has(a) |has(c)", "has(a) |has(c)\n       ^ a single `|` is no operator; write `||`"),
        ("has (a)", "has (a)\n    ^ no blank may stand between `has` and `(`"),
        ("has()", "has()\n    ^ expected a label"),
        ("all(x)", "all(x)\n    ^ expected `)`"),
        ("(has(a)", "(has(a)\n^ this `(` is never closed"),
        ("has(a))", "has(a))\n      ^ this `)` closes nothing"),
        ("a in {'b'", "a in {'b'\n     ^ this `{` is never closed"),
        ("a in {,}", "a in {,}\n      ^ expected a value in quotes, such as 'blue'"),
        ("a in 'b'", "a in 'b'\n     ^ expected `{`"),
        ("a in {'b' 'c'}", "a in {'b' 'c'}\n          ^ expected `,` or `}`"),
        ("blue", "blue\n^ `blue` alone says nothing; write `has(blue)` or compare it"),
        (
            "a containsx",
            "a containsx\n  ^ expected an operator behind the label `a`: \
             ==, !=, in, not in, contains, starts with or ends with",
        ),
        ("a ==\n'b'", "a ==·'b'\n    ^ expected a value in quotes, such as 'blue'"),
        ("has(a)\n", "has(a)·\n      ^ only spaces and tabs may stand between words"),
        ("has(a) &&", "has(a) &&\n         ^ expected a label, `has(…)`, `all()`, `global()` or `(`"),
        ("!= 'x'", "!= 'x'\n ^ expected a label, `has(…)`, `all()`, `global()` or `(`"),
        (
            "käse == 'x'",
            "käse == 'x'\n ^ expected an operator behind the label `k`: ==, !=, in, not in, contains, starts with or ends with",
        ),
    ] {
        assert_eq!(error(text), expected);
    }
}

#[test]
fn an_error_in_a_long_text_shows_its_surroundings() {
    let text = format!("{}a = 'b'{}", "has(x) && ".repeat(50), " && has(y)".repeat(50));
    let shown = error(&text);
    let (line, pointer) = shown.split_once('\n').unwrap();
    let caret = pointer.find('^').unwrap();
    assert_eq!(line.chars().nth(caret), Some('='), "{shown}");
    assert!(line.chars().count() < 110, "{shown}");
    assert!(line.starts_with('…') && line.ends_with('…'), "{shown}");
    let error = Selector::parse(&text).unwrap_err();
    assert!(error.sentence().contains("at character 503: a single `=`"), "{}", error.sentence());
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let nested = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
    assert!(Selector::parse(&nested(100)).is_ok());
    assert!(error(&nested(101)).ends_with("^ parentheses nest deeper than 100"));
    assert!(Selector::parse(&"(".repeat(1_000_000)).is_err());
    assert!(Selector::parse(&"!(".repeat(1_000_000)).is_err());
    assert!(matches(&format!("{}has(a)", "!".repeat(1_000_000)), &[("a", "")]), "repeated `!` do not nest");
    assert!(matches(&format!("has(a){}", " && has(a)".repeat(100_000)), &[("a", "")]), "chains do not nest");
    assert!(
        matches(&format!("(has(a)){}", " && (has(a))".repeat(200)), &[("a", "")]),
        "nor do groups side by side"
    );
}

#[test]
fn a_label_has_at_most_512_characters() {
    assert!(Selector::parse(&format!("has({})", "a".repeat(512))).is_ok());
    assert!(error(&format!("has({})", "a".repeat(513))).contains("at most 512"));
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("in".to_owned()),
        Just("has".to_owned()),
        "[A-Za-z0-9_./-]{1,8}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[xy]{0,2}", "[^']{0,4}", "[^\"]{0,4}"]
}

fn operator() -> impl Strategy<Value = Operator> {
    prop_oneof![
        Just(Operator::Equal),
        Just(Operator::NotEqual),
        Just(Operator::Contains),
        Just(Operator::StartsWith),
        Just(Operator::EndsWith),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    let values = || prop::collection::btree_set(value(), 0..3);
    let leaf = prop_oneof![
        Just(Expr::All),
        Just(Expr::Global),
        label().prop_map(Expr::Has),
        (label(), operator(), value()).prop_map(|(l, o, v)| Expr::Compare(l, o, v)),
        (label(), values()).prop_map(|(l, v)| Expr::In(l, v)),
        (label(), values()).prop_map(|(l, v)| Expr::NotIn(l, v)),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(Expr::not),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Expr::and),
            prop::collection::vec(inner, 1..4).prop_map(Expr::or),
        ]
    })
}

fn pairs() -> impl Strategy<Value = Pairs> {
    prop::collection::btree_map(label(), value(), 0..4)
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same_and_selects_the_same(expr in expr(), labels in pairs()) {
        let selector = Selector(expr);
        let text = selector.to_string();
        let again = Selector::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&again, &selector);
        prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn no_text_breaks_the_parser(text in any::<String>()) {
        check_any(&text)?;
    }

    #[test]
    fn no_text_of_selector_parts_breaks_the_parser(
        parts in prop::collection::vec(prop_oneof![
            Just("("), Just(")"), Just("!"), Just("&&"), Just("||"), Just("&"), Just("="), Just("=="), Just("has("),
            Just("all()"), Just("a"), Just("'x'"), Just("\"y\""), Just("in"), Just("not"), Just("{"), Just("}"),
            Just(","), Just(" "), Just("\t"), Just("\n"), Just("starts"), Just("with"), Just("ü"), Just("'"),
        ], 0..20)
    ) {
        check_any(&parts.concat())?;
    }
}

/// Every text either parses and survives the round trip, or is refused at a character it has.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    match Selector::parse(text) {
        Ok(selector) => prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector)),
        Err(error) => {
            prop_assert!(error.at <= text.chars().count());
            prop_assert_eq!(error.to_string().lines().count(), 2, "{}", error);
        }
    }
    Ok(())
}
