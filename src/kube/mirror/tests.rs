//! A mirror is told of objects, and says what of it was news.

use serde_json::json;

use super::*;

fn pool(cidr: &str) -> Value {
    json!({"metadata": {"name": "p", "resourceVersion": "1"}, "spec": {"cidr": cidr}})
}

/// 0: less is known than an earlier process knew.
fn edition(mirror: &Mirror, kind: Watched) -> u64 {
    mirror.editions().find(|(whole, _)| *whole == kind).map_or(0, |(_, edition)| edition)
}

#[test]
fn a_list_that_changes_nothing_is_no_change_and_an_event_about_nothing_that_matters_is_none() {
    let mut mirror = Mirror::default();
    assert!(mirror.listed(Watched::Pools, &[pool("10.0.0.0/28")]));
    assert!(!mirror.listed(Watched::Pools, &[pool("10.0.0.0/28")]));
    let mut touched = pool("10.0.0.0/28");
    touched["metadata"]["resourceVersion"] = "2".into();
    touched["status"] = json!({"leased": 3});
    assert!(!mirror.is(Watched::Pools, &touched));
    assert!(mirror.is(Watched::Pools, &pool("10.0.0.0/29")));
    assert!(mirror.gone(Watched::Pools, &pool("10.0.0.0/29")));
    assert!(!mirror.gone(Watched::Pools, &pool("10.0.0.0/29")));
}

#[test]
fn an_object_that_was_asked_for_is_ahead_of_the_watch_until_that_comes_by() {
    let namespace = |version: &str, value: &str| json!({"metadata": {"name": "shop", "resourceVersion": version, "labels": {"a": value}}});
    let mut mirror = Mirror::default();
    let kind = Watched::Namespaces;
    mirror.listed(kind, &[namespace("5", "one")]);
    mirror.reached(kind, "10");
    assert!(!mirror.learn(kind, &namespace("9", "old")), "the watch has passed it");
    assert!(mirror.learn(kind, &namespace("12", "three")));
    assert!(!mirror.is(kind, &namespace("11", "two")), "and never goes back");
    assert!(!mirror.gone(kind, &namespace("11", "two")));
    assert_eq!(mirror.object(kind, "shop").unwrap()["metadata"]["labels"]["a"], "three");
    assert!(mirror.is(kind, &namespace("13", "four")));
    assert!(mirror.gone(kind, &namespace("14", "four")));
}

#[test]
fn what_goes_with_its_definition_stays_until_others_of_the_kind_are_there() {
    let named = |name: &str| json!({"metadata": {"name": name, "resourceVersion": "1"}, "spec": {"cidr": "10.0.0.0/28"}});
    let known =
        |mirror: &Mirror| mirror.objects(Watched::Pools).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    let mut mirror = Mirror::default();
    let kind = Watched::Pools;
    mirror.listed(kind, &[named("a"), named("b"), named("c")]);
    let seen = |names: &[&str]| -> Vec<Seen> {
        names.iter().map(|name| Seen::of(&Reach::default(), kind, &named(name))).collect()
    };
    assert!(mirror.would_lose(kind, &seen(&["a"])).is_some());
    assert!(mirror.would_lose(kind, &seen(&["a", "b", "c"])).is_none());
    assert!(mirror.gone(kind, &named("c")), "one that was deleted for itself goes");
    assert!(mirror.is_undefined(kind, "deleted"));
    assert!(mirror.listed(kind, &[]), "made anew: the reason changes");
    assert_eq!(known(&mirror), ["a", "b"]);
    assert!(mirror.lost()[0].1.contains("a, b stay in force"), "{:?}", mirror.lost());
    assert!(!mirror.listed(kind, &[]), "and still nobody applied them");
    assert!(!mirror.is(kind, &named("a")), "the same again is no change");
    assert_eq!(mirror.outlived(kind).collect::<Vec<_>>(), ["b"]);
    assert!(mirror.listed(kind, &[named("a")]), "the next list with one of them is the truth");
    assert_eq!((known(&mirror), mirror.lost()), (vec!["a".to_owned()], vec![]));
}

#[test]
fn a_kind_that_cannot_be_seen_keeps_what_was_known_until_it_is_listed_again() {
    let mut mirror = Mirror::default();
    for kind in Watched::of_a_node() {
        assert!(!mirror.is_synced());
        mirror.listed(kind, &[]);
    }
    assert!(mirror.is_synced());
    mirror.listed(Watched::Pools, &[pool("10.0.0.0/28")]);
    assert!(mirror.cannot_see(Watched::Pools, "403"));
    assert!(!mirror.cannot_see(Watched::Pools, "403"));
    assert_eq!((mirror.readings().len(), mirror.is_synced()), (1, true));
    assert_eq!(mirror.lost(), [(Watched::Pools, "403".to_owned())]);
    assert!(mirror.listed(Watched::Pools, &[]));
    assert_eq!((mirror.readings().len(), mirror.lost().len()), (0, 0));
}

#[test]
fn how_a_pod_is_is_news_and_no_reason_to_plan() {
    let pod = |status: Value, deleted: Value| json!({"metadata": {"namespace": "gw", "name": "one", "uid": "u", "deletionTimestamp": deleted}, "status": status});
    let ready = |word: &str| json!({"phase": "Running", "conditions": [{"type": "Ready", "status": word}]});
    let mut mirror = Mirror::default();
    mirror.listed(Watched::Pods, &[pod(ready("False"), Value::Null)]);
    let generation = mirror.generation(Watched::Pods);
    for (object, life) in [
        (pod(ready("True"), Value::Null), Life::Ready),
        (pod(ready("False"), Value::Null), Life::Unready),
        (pod(ready("True"), "2026-11-21T00:00:00Z".into()), Life::Leaving),
    ] {
        assert!(mirror.is(Watched::Pods, &object));
        assert!(!mirror.is(Watched::Pods, &object));
        assert_eq!(mirror.life("gw/one"), Some((&["u".to_owned()][..], life)));
    }
    assert_eq!(mirror.generation(Watched::Pods), generation);
    mirror.is(Watched::Pods, &pod(json!({"phase": "Failed"}), Value::Null));
    assert_eq!(mirror.life("gw/one").unwrap().1, Life::Ended);
    mirror.gone(Watched::Pods, &pod(Value::Null, Value::Null));
    assert_eq!(mirror.life("gw/one"), None);
}

#[test]
fn what_people_are_told_of_a_pod_is_kept_beside_it_and_is_no_change() {
    let pod = |annotations: Value| json!({"metadata": {"namespace": "shop", "name": "cart", "annotations": annotations}});
    let mut mirror = Mirror::default();
    mirror.listed(Watched::Pods, &[pod(json!({}))]);
    let said = pod(json!({"egret.dev/egress-addresses": "10.10.10.0"}));
    assert!(!mirror.is(Watched::Pods, &said) && !mirror.listed(Watched::Pods, std::slice::from_ref(&said)));
    assert_eq!(mirror.told("shop/cart"), Some("10.10.10.0"));
    let (_, reading) = &mirror.readings()[0];
    assert_eq!(reading.problems, []);
    assert!(!mirror.is(Watched::Pods, &pod(json!({}))));
    assert_eq!(mirror.told("shop/cart"), None);
}

#[test]
fn what_an_earlier_process_knew_is_in_force_until_its_kind_is_listed() {
    let mut mirror = Mirror::default();
    let kind = Watched::Pools;
    let other = json!({"metadata": {"name": "q", "resourceVersion": "7"}, "spec": {"cidr": "10.0.1.0/28"}});
    assert!(!mirror.is_whole(kind));
    mirror.remember(kind, [pool("10.0.0.0/28")]);
    assert_eq!((mirror.is_whole(kind), mirror.generation(kind), edition(&mirror, kind)), (true, 0, 0));
    assert!(mirror.learn(kind, &other));
    assert_eq!((mirror.generation(kind), edition(&mirror, kind)), (0, 1), "news, beside all that was known");
    assert_eq!(mirror.objects(kind).map(|(name, _)| name).collect::<Vec<_>>(), ["p", "q"]);
    mirror.remember(kind, []);
    assert_eq!(mirror.objects(kind).count(), 2, "what was heard since is not forgotten");
    assert!(mirror.would_lose(kind, &[]).is_some());
    mirror.reached(kind, "9");
    assert!(mirror.listed(kind, std::slice::from_ref(&other)));
    assert_eq!(mirror.objects(kind).map(|(name, _)| name).collect::<Vec<_>>(), ["q"]);
    assert!(mirror.generation(kind) > 1);
}

#[test]
fn foreign_objects_that_an_earlier_process_knew_outlive_their_definition_only_where_they_are_wanted() {
    for (wanted, left) in [(true, vec!["p"]), (false, vec![])] {
        let mut mirror = Mirror::default();
        let kind = Watched::CiliumPolicies;
        mirror.remember(kind, [pool("10.0.0.0/28")]);
        assert!(mirror.has_none(kind, "404", wanted));
        assert!(mirror.generation(kind) > 0, "it is known by now");
        assert_eq!(mirror.objects(kind).map(|(name, _)| name).collect::<Vec<_>>(), left);
        assert_eq!(mirror.lost().len(), left.len());
        mirror.listed(kind, &[]);
        assert_eq!(mirror.outlived(kind).collect::<Vec<_>>(), left, "made anew, and empty");
    }
}

#[test]
fn foreign_objects_that_may_not_be_seen_any_more_stay_and_so_does_what_nobody_says_of_their_project() {
    let known =
        |mirror: &Mirror, kind| mirror.objects(kind).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    let (pools, sets) = (Watched::StoredCalicoPools, Watched::CalicoAgents);
    let mut mirror = Mirror::default();
    assert!(mirror.may_not_see(pools, "403") && mirror.may_not_see(sets, "403"));
    assert!(
        mirror.is_whole(pools) && mirror.is_whole(sets) && mirror.lost().is_empty(),
        "nobody has it here"
    );

    let mut mirror = Mirror::default();
    mirror.remember(pools, [pool("10.0.0.0/28")]);
    assert!(mirror.may_not_see(pools, "403") && mirror.may_not_see(sets, "403"));
    assert_eq!((known(&mirror, pools), mirror.is_whole(pools)), (vec!["p".to_owned()], true));
    assert!(!mirror.is_whole(sets), "where pools are known, nobody says that Calico is not at work");
    assert_eq!(mirror.lost().len(), 2);
    assert!(mirror.may_not_see(Watched::CiliumAgents, "403") && mirror.is_whole(Watched::CiliumAgents));
}

#[test]
fn a_store_that_was_put_back_is_believed_although_its_versions_are_lower() {
    let namespace = |version: &str| json!({"metadata": {"name": "shop", "resourceVersion": version, "labels": {"a": version}}});
    let mut mirror = Mirror::default();
    let kind = Watched::Namespaces;
    mirror.listed(kind, &[namespace("5")]);
    mirror.reached(kind, "100");
    mirror.learn(kind, &namespace("120"));
    mirror.is_put_back(kind, "130");
    assert!(!mirror.is(kind, &namespace("110")), "a server that lagged was not put back");
    mirror.is_put_back(kind, "40");
    mirror.reached(kind, "40");
    mirror.listed(kind, &[namespace("5")]);
    assert_eq!(mirror.object(kind, "shop").unwrap()["metadata"]["labels"]["a"], "5");
    assert!(mirror.learn(kind, &namespace("41")), "newer than all that the store has");
    assert!(mirror.is(kind, &namespace("42")));
}

#[test]
fn a_pod_that_was_asked_for_and_that_a_list_does_not_know_yet_lives() {
    let pod = |name: &str, version: &str| {
        json!({"metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": version},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    let mut mirror = Mirror::default();
    mirror.learn(Watched::Pods, &pod("gw", "9"));
    mirror.reached(Watched::Pods, "7");
    mirror.listed(Watched::Pods, &[pod("old", "5")]);
    assert!(mirror.object(Watched::Pods, "shop/gw").is_some());
    assert_eq!(mirror.life("shop/gw").map(|(_, life)| life), Some(Life::Ready));
    mirror.reached(Watched::Pods, "10");
    mirror.listed(Watched::Pods, &[pod("old", "5")]);
    assert!(mirror.life("shop/gw").is_none(), "it is gone by now");
}

#[test]
fn what_a_list_takes_away_is_as_old_as_the_oldest_of_it_that_is_news() {
    let at = |name: &str, day: u8| {
        let made = format!("1970-01-0{day}T00:00:00Z");
        json!({"metadata": {"name": name, "resourceVersion": "1", "creationTimestamp": made}})
    };
    let lost = |mirror: &Mirror| mirror.would_lose(Watched::Policies, &[]);
    let mut mirror = Mirror::default();
    mirror.listed(Watched::Policies, &[]);
    assert_eq!(lost(&mirror), None);
    mirror.listed(Watched::Policies, &[at("a", 2), at("b", 3)]);
    assert_eq!(lost(&mirror), Some(86_400));
    mirror.is_undefined(Watched::Policies, "deleted");
    mirror.listed(Watched::Policies, &[]);
    assert_eq!(lost(&mirror), Some(i64::MAX), "they are lost already");
    mirror.is(Watched::Policies, &at("c", 4));
    assert_eq!(lost(&mirror), Some(3 * 86_400), "this one is not");
}

#[test]
fn annotations_that_nobody_here_reads_are_not_kept_and_no_change() {
    let object = |note: &str| {
        let annotations = json!({"example.com/note": note, "kubectl.kubernetes.io/last-applied-configuration": note,
            "cni.projectcalico.org/podIP": "10.0.0.9/32", "egret.dev/egress-addresses": note, "kubernetes.io/config.hash": "file",
            "egret.dev/slector": "all()", "egress.projectcalico.org/selector": "all()"});
        json!({"metadata": {"namespace": "shop", "name": "cart", "uid": "u", "annotations": annotations}})
    };
    for kind in [Watched::Pods, Watched::Namespaces] {
        let mut mirror = Mirror::default();
        mirror.listed(kind, &[object("long")]);
        assert!(!mirror.is(kind, &object("longer")), "{kind:?}");
        let kept = &mirror.object(kind, "shop/cart").unwrap()["metadata"]["annotations"];
        let names: BTreeSet<_> = kept.as_object().unwrap().keys().map(String::as_str).collect();
        let read = ["egress.projectcalico.org/selector", "egret.dev/slector", "kubernetes.io/config.hash"];
        assert_eq!(names, read.into());
    }
}

#[test]
fn where_the_api_server_is_stays_known_while_it_says_that_it_is_nowhere() {
    let slice = |addresses: &[&str]| {
        let endpoints: Vec<Value> =
            addresses.iter().map(|one| json!({"addresses": [one], "conditions": {"ready": true}})).collect();
        json!({"metadata": {"namespace": "default", "name": "kubernetes", "resourceVersion": "3"}, "endpoints": endpoints})
    };
    let kind = Watched::ApiServers;
    let mut mirror = Mirror::default();
    assert!(mirror.listed(kind, &[slice(&["192.0.2.250"])]));
    let known = |mirror: &Mirror| mirror.object(kind, "default/kubernetes").unwrap()["endpoints"].to_string();
    assert_eq!(
        known(&mirror),
        r#"[{"addresses":["192.0.2.250"]}]"#,
        "and nothing of what changes all the time"
    );
    assert!(!mirror.is(kind, &slice(&[])) && !mirror.gone(kind, &slice(&[])), "it is about to end");
    assert!(!mirror.listed(kind, &[slice(&[])]) && !mirror.listed(kind, &[]));
    assert_eq!(known(&mirror), r#"[{"addresses":["192.0.2.250"]}]"#);
    assert!(mirror.is(kind, &slice(&["192.0.2.251"])), "another one is there");
    assert_eq!(known(&mirror), r#"[{"addresses":["192.0.2.251"]}]"#);
}

#[test]
fn what_was_known_of_another_cluster_goes_with_the_first_list_of_this_one_whichever_comes_first() {
    let system = |uid: &str| json!({"metadata": {"name": "kube-system", "uid": uid, "resourceVersion": "1"}});
    let known =
        |mirror: &Mirror| mirror.objects(Watched::Pools).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    for (uid, left) in [("there", vec!["p"]), ("here", vec![])] {
        for pools_first in [true, false] {
            let mut mirror = Mirror::default();
            mirror.remember(Watched::Namespaces, [system("there")]);
            mirror.remember(Watched::Pools, [pool("10.0.0.0/28")]);
            let listed = |mirror: &mut Mirror| {
                // As the follower has it, where the definition is younger than what is remembered.
                if mirror.would_lose(Watched::Pools, &[]).is_some() {
                    mirror.is_undefined(Watched::Pools, "made anew");
                }
                mirror.listed(Watched::Pools, &[]);
            };
            if pools_first {
                listed(&mut mirror);
            }
            mirror.listed(Watched::Namespaces, &[system(uid)]);
            if !pools_first {
                listed(&mut mirror);
            }
            assert_eq!(known(&mirror), left, "{uid}, pools first: {pools_first}");
        }
    }
}
