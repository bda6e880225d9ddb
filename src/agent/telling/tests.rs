//! A node with pods, gateways that come and go, and what people hear of it.

use proptest::prelude::*;

use super::*;
use crate::egress::list::list;
use crate::egress::model::View;
use crate::egress::world::World;

fn held(why: &str) -> Standing {
    Standing { held: Some(("0.0.0.0/0".to_owned(), why.to_owned())), ..Standing::default() }
}

fn through(gateway: &str, address: &str) -> Standing {
    Standing {
        addresses: BTreeSet::from([address.parse().unwrap()]),
        gateways: BTreeSet::from([gateway.to_owned()]),
        ..Standing::default()
    }
}

fn subject(n: usize, standing: Option<Standing>) -> Subject {
    Subject {
        pod: PodName::new("shop", format!("cart-{n}")),
        uid: format!("u{n}"),
        standing,
        annotated: None,
    }
}

fn after(seconds: u64) -> Duration {
    Duration::from_secs(1000 + seconds)
}

/// What is said, in short.
fn said(words: &[Word]) -> Vec<String> {
    let short = |word: &Word| match word {
        Word::Annotate { pod, value } => format!("{pod} = {}", value.as_deref().unwrap_or("")),
        Word::Event { pod, reason, message, .. } => format!("{pod} {reason}: {message}"),
    };
    words.iter().map(short).collect()
}

#[test]
fn a_pod_is_told_of_once_and_again_when_it_changes_but_not_too_often() {
    let mut telling = Telling::default();
    let mut cart = subject(1, Some(held("no gateway is there")));
    assert_eq!(
        said(&telling.due(after(0), std::slice::from_ref(&cart))),
        ["shop/cart-1 = none", "shop/cart-1 EgressHeld: traffic to 0.0.0.0/0 is held: no gateway is there"]
    );
    cart.annotated = Some("none".to_owned());
    assert_eq!(telling.due(after(1), std::slice::from_ref(&cart)), []);
    cart.standing = Some(through("gw/one", "10.10.10.0"));
    // The annotation at once, the event when the pod has rested.
    assert_eq!(said(&telling.due(after(2), std::slice::from_ref(&cart))), ["shop/cart-1 = 10.10.10.0"]);
    cart.annotated = Some("10.10.10.0".to_owned());
    assert!(telling.waits(after(2), std::slice::from_ref(&cart)));
    assert_eq!(telling.due(after(10), std::slice::from_ref(&cart)), []);
    assert_eq!(
        said(&telling.due(after(31), std::slice::from_ref(&cart))),
        ["shop/cart-1 EgressGateway: leaves with 10.10.10.0 through gw/one"]
    );
    assert!(!telling.waits(after(31), std::slice::from_ref(&cart)));
    // What goes wrong is told at once.
    cart.standing = Some(held("the gateway is gone"));
    assert_eq!(telling.due(after(32), std::slice::from_ref(&cart)).len(), 2);
    // Nothing selects it any more.
    cart.standing = None;
    assert_eq!(said(&telling.due(after(40), &[cart])), ["shop/cart-1 = "]);
}

#[test]
fn what_is_past_before_it_was_said_is_not_said() {
    let mut telling = Telling::default();
    let well = subject(1, Some(through("gw/one", "10.10.10.0")));
    let mut well = Subject { annotated: Some("10.10.10.0".to_owned()), ..well };
    assert_eq!(telling.due(after(0), std::slice::from_ref(&well)), [], "an earlier agent has told it");
    well.standing = Some(held("the gateway is gone"));
    assert_eq!(telling.due(after(1), std::slice::from_ref(&well)).len(), 2);
    well.standing = Some(through("gw/one", "10.10.10.0"));
    well.annotated = Some("none".to_owned());
    assert_eq!(said(&telling.due(after(2), std::slice::from_ref(&well))), ["shop/cart-1 = 10.10.10.0"]);
    well.standing = Some(held("the gateway is gone"));
    assert_eq!(
        telling.due(after(60), std::slice::from_ref(&well)),
        [],
        "as told; the annotation was never changed"
    );
}

#[test]
fn an_event_that_could_not_be_made_is_made_later() {
    let mut telling = Telling::default();
    let cart = [subject(1, Some(held("x")))];
    let words = telling.due(after(0), &cart);
    assert_eq!(words.len(), 2);
    words.iter().for_each(|word| telling.unsaid(word));
    assert_eq!(telling.due(after(1), &cart), words);
}

#[test]
fn annotations_are_written_long_before_all_events_are_made_and_none_of_these_is_lost() {
    let mut telling = Telling::default();
    let mut pods: Vec<Subject> = (10..70).map(|n| subject(n, Some(held("x")))).collect();
    let (mut refused, mut made) = (0, BTreeSet::new());
    for second in 0..600 {
        for word in telling.due(after(second), &pods) {
            match said(std::slice::from_ref(&word)).remove(0) {
                // Of ten, which would be the first, the server takes no event: these come after all others.
                event if event.starts_with("shop/cart-1") && event.contains("Held") => {
                    refused += 1;
                    telling.refused(after(second), word);
                }
                event if event.contains("Held") => assert!(made.insert(event), "it was told already"),
                _ => {}
            }
        }
        pods.iter_mut().for_each(|pod| pod.annotated = Some("none".to_owned()));
    }
    assert_eq!(made.len(), 50);
    assert!(refused > 10, "they are tried again");
}

#[test]
fn a_pod_that_started_without_us_is_told_to_start_again() {
    let mut telling = Telling::default();
    let unwired = Standing { unwired: true, ..through("gw/one", "10.10.10.0") };
    let early = [subject(1, Some(unwired))];
    assert_eq!(telling.due(after(0), &early), [], "its sandbox may be made anew just now");
    assert!(telling.waits(after(0), &early) && telling.unwired(after(29), &early).is_empty());
    let words = telling.due(after(30), &early);
    assert_eq!(words.len(), 1, "and no address is promised: {words:?}");
    assert!(matches!(&words[0], Word::Event { warning: true, reason: "EgressUnprotected", .. }), "{words:?}");
    assert_eq!(telling.unwired(after(30), &early), BTreeSet::from([&early[0].pod]));
}

#[test]
fn a_pod_whose_sandbox_is_made_anew_is_not_told_that_it_started_without_us() {
    let mut telling = Telling::default();
    let wired = || [subject(1, Some(through("gw/one", "10.10.10.0")))];
    assert_eq!(telling.due(after(0), &wired()).len(), 2);
    let ending = [subject(1, Some(Standing { unwired: true, ..through("gw/one", "10.10.10.0") }))];
    assert_eq!(telling.due(after(60), &ending), []);
    let _ = telling.due(after(80), &wired());
    assert_eq!(telling.due(after(100), &ending), [], "what counts is how long it lasts this time");
}

#[test]
fn a_pod_whose_traffic_passes_its_node_by_is_told_so_and_promised_nothing() {
    let bypassed =
        Standing { bypassed: Some("it does not pass".to_owned()), ..through("gw/one", "10.10.10.0") };
    let mut told = subject(1, Some(bypassed));
    told.annotated = Some("10.10.10.0".to_owned());
    assert_eq!(
        said(&Telling::default().due(after(0), &[told])),
        ["shop/cart-1 = ", "shop/cart-1 EgressUnprotected: a rule selects this pod, but it does not pass"]
    );
}

#[test]
fn a_selected_pod_on_its_nodes_network_is_told_that_nothing_can_be_done_for_it() {
    let view = View::default()
        .namespace("shop", "", &[("egress.projectcalico.org/selector", "has(gw)")])
        .namespace("kube", "", &[])
        .pod("shop/host", "", &[])
        .pod("kube/proxy", "", &[]);
    let mut view = view;
    for pod in view.pods.values_mut() {
        (pod.host_network, pod.ips) = (true, vec!["172.31.0.1".parse().unwrap()]);
    }
    let rows = list(&view, view.pods.keys().cloned()).items;
    let standings = standings(&rows, &BTreeSet::new(), &BTreeMap::new());
    assert_eq!(standings.keys().map(ToString::to_string).collect::<Vec<_>>(), ["shop/host"]);
    let told = Subject { standing: standings.into_values().next(), ..subject(1, None) };
    assert_eq!(
        said(&Telling::default().due(after(0), &[told])),
        [
            "shop/cart-1 EgressUnprotected: Namespace shop `egress.projectcalico.org/selector` selects this pod, but it shares its \
          node's network and leaves with its node's address: leave it out, or remove spec.hostNetwork"
        ]
    );
}

#[test]
fn a_thousand_pods_make_no_storm_and_warnings_come_first() {
    let mut telling = Telling::default();
    let standing = |n: usize| if n.is_multiple_of(10) { held("x") } else { through("gw/one", "10.10.10.0") };
    let pods: Vec<Subject> = (0..1000).map(|n| subject(n, Some(standing(n)))).collect();
    let words = telling.due(after(0), &pods);
    let events = |words: &[Word]| words.iter().filter(|word| matches!(word, Word::Event { .. })).count();
    assert_eq!((words.len(), events(&words)), (70, 20));
    let warned = words.iter().filter(|word| matches!(word, Word::Event { warning: true, .. })).count();
    assert_eq!(warned, 20);
    assert!(telling.waits(after(0), &pods));
    let minute: usize = (1..=60).map(|second| events(&telling.due(after(second), &pods))).sum();
    assert_eq!(minute, 12);
}

proptest! {
    #[test]
    fn whatever_happens_no_more_is_said_than_the_budget_allows(
        steps in prop::collection::vec((0u64..20, prop::collection::vec(0u8..4, 60)), 1..40)
    ) {
        let mut telling = Telling::default();
        let (mut now, mut events, mut annotations) = (0, 0u64, 0u64);
        for (pause, states) in steps {
            now += pause;
            let standing = |state: u8| match state {
                0 => None,
                1 => Some(held("x")),
                2 => Some(through("gw/one", "10.10.10.0")),
                _ => Some(through("gw/two", "10.10.10.1")),
            };
            let pods: Vec<Subject> = states.iter().enumerate().map(|(n, s)| subject(n, standing(*s))).collect();
            for word in telling.due(after(now), &pods) {
                match word {
                    Word::Event { .. } => events += 1,
                    Word::Annotate { .. } => annotations += 1,
                }
            }
        }
        prop_assert!(events <= 20 + now / 5 && annotations <= 50 + now * 5, "{events} {annotations} in {now} s");
    }
}
