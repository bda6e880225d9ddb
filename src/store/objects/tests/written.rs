//! What users write into the directory, and what comes of it.

use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;

use super::super::ObjectsError;
use super::world::{World, label, pod, pods, pool, told};
use crate::api::Kind;
use crate::config::Config;
use crate::egress::model::{Endpoint, EndpointState, PodName};

#[test]
fn files_are_found_at_any_depth_and_other_names_are_named() {
    let world = World::with(&[
        ("a.yaml", &pod("a", "1")),
        ("deep/er/b.yml", &pod("b", "1")),
        ("c.json", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"c","namespace":"s"}}"#),
        ("x.yaml.d/d.yaml", &pod("d", "1")),
        ("i.YAML", &pod("i", "1")),
        ("j.Yml", &pod("j", "1")),
        ("k.JSON", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"k","namespace":"s"}}"#),
        (".hidden.yaml", &pod("e", "1")),
        (".git/f.yaml", &pod("f", "1")),
        ("h.yaml~", &pod("h", "1")),
        ("#h.yaml#", &pod("h", "1")),
        ("h.swp", "words"),
        ("g.yaml.tmp", &pod("g", "1")),
        ("deep/noending", &pod("g", "1")),
        ("README.md", "words"),
    ]);
    for _ in 0..2 {
        let objects = world.open();
        assert_eq!(pods(&objects), ["a", "b", "c", "d", "i", "j", "k"].map(|name| format!("s/{name}")));
        let why = "its name ends neither in .yaml nor in .yml or .json, so it is not read; give it such an ending, or move it out of here";
        let passed_over = ["README.md", "deep/noending", "g.yaml.tmp"];
        assert_eq!(told(&objects), passed_over.map(|name| format!("{name}: {why}")));
        assert_eq!(objects.unread(), passed_over);
    }
    let objects = world.settle();
    assert_eq!(objects.file(Kind::Pod, "s/b").as_deref(), Some("deep/er/b.yml"));
}

#[test]
fn a_directory_is_read_whatever_its_name_and_only_plain_files_are_an_editors() {
    let other = World::with(&[("b.yaml", &pod("b", "1")), ("c.txt", "words")]);
    let world = World::with(&[
        ("policies~/a.yaml", &pod("a", "1")),
        ("old.swp/x.txt", "words"),
        ("#d#/d.yaml", &pod("d", "1")),
    ]);
    symlink(other.path(""), world.path("more~")).unwrap();
    symlink(other.path("c.txt"), world.path("c.txt~")).unwrap();
    symlink("not-mounted-yet", world.path("e~")).unwrap();
    for _ in 0..2 {
        let objects = world.settle();
        assert_eq!(pods(&objects), ["s/a", "s/b", "s/d"]);
        assert_eq!(objects.unread(), ["e~", "more~/c.txt", "old.swp/x.txt"]);
    }
    world.write("policies~/a.yaml", &pod("a", "2"));
    world.write("old.swp/n.yaml", &pod("n", "1"));
    let objects = world.open();
    assert_eq!(label(&objects, "a").as_deref(), Some("2"));
    assert_eq!(pods(&objects), ["s/a", "s/b", "s/d", "s/n"]);
}

#[test]
fn a_file_that_is_renamed_to_an_ending_that_is_not_read_is_gone_and_named_until_it_is_read_again() {
    let world = World::with(&[("a.yaml", &pod("a", "1"))]);
    assert_eq!((pods(&world.settle()), world.open().unread()), (vec!["s/a".into()], vec![]));
    world.rename("a.yaml", "a.txt");
    assert_eq!((pods(&world.settle()), world.open().unread()), (vec![], vec!["a.txt".into()]));
    world.write("a.txt", &pod("a", "2"));
    assert_eq!(world.open().unread(), ["a.txt"]);
    world.rename("a.txt", "a.YML");
    let objects = world.open();
    assert_eq!((label(&objects, "a").as_deref(), objects.unread()), (Some("2"), vec![]));
}

#[test]
fn a_file_is_in_doubt_until_it_is_read_to_its_end() {
    let world = World::with(&[
        ("whole.yaml", &pod("a", "1")),
        ("wrong.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: s}\nspec: 7\n"),
        ("half.yaml", &format!("{}---\n{{", pod("c", "1"))),
        ("empty.yml", ""),
        ("torn.json", "{"),
    ]);
    assert_eq!(world.open().unread(), ["empty.yml", "half.yaml", "torn.json"]);
    for name in ["half.yaml", "empty.yml", "torn.json"] {
        world.delete(name);
    }
    assert_eq!(world.open().unread(), [""; 0]);
}

#[test]
fn a_document_that_is_no_object_leaves_its_file_in_doubt_and_what_it_held_in_force() {
    let list = |items: &str| format!(r#"{{"apiVersion":"v1","kind":"List","items":[{items}]}}"#);
    let of_c = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"c","namespace":"s"}}"#;
    let world = World::with(&[
        ("array.json", of_c),
        ("items.json", &list(of_c)),
        ("nested.json", &list(of_c)),
        ("word.yaml", &pod("w", "1")),
    ]);
    let held = pods(&world.settle());
    assert_eq!((held.clone(), world.open().unread()), (vec!["s/c".into(), "s/w".into()], vec![]));
    // The same policies as a bare array, as a list inside a list, and a member that is no object.
    world.write("array.json", &format!("[{of_c}]"));
    world.write("items.json", r#"{"apiVersion":"v1","kind":"List","items":7}"#);
    world.write("nested.json", &list(&list(of_c)));
    world.write("word.yaml", &format!("{}---\nwords\n", pod("v", "1")));
    for _ in 0..2 {
        let objects = world.settle();
        assert_eq!(objects.unread(), ["array.json", "items.json", "nested.json", "word.yaml"]);
        assert_eq!(pods(&objects), held);
    }
    world.write("array.json", of_c);
    world.delete("items.json");
    world.delete("nested.json");
    world.delete("word.yaml");
    assert_eq!((pods(&world.open()), world.open().unread()), (vec!["s/c".into()], vec![]));
}

#[test]
fn links_are_followed_and_those_that_lead_nowhere_are_named() {
    let world = World::with(&[("a.yaml", &pod("a", "1"))]);
    let other = World::with(&[("b.yaml", &pod("b", "1")), ("c.txt", &pod("c", "1"))]);
    symlink(other.path(""), world.path("more")).unwrap();
    symlink(other.path("c.txt"), world.path("c.yaml")).unwrap();
    symlink("nowhere", world.path("d.yaml")).unwrap();
    symlink("not-mounted-yet", world.path("e")).unwrap();
    symlink("f.yaml", world.path("f.yaml")).unwrap();
    symlink(".", world.path("round")).unwrap();
    nix::unistd::mkfifo(&world.path("pipe.yaml"), Mode::S_IRWXU).unwrap();
    let objects = world.settle();
    assert_eq!(pods(&objects), ["s/a", "s/b", "s/c"]);
    assert_eq!(
        told(&objects),
        [
            "d.yaml: the link leads to nothing; restore what it should lead to, or delete it",
            "e: the link leads to nothing; restore what it should lead to, or delete it",
            "f.yaml: the link leads back to itself; delete it",
            "more/c.txt: its name ends neither in .yaml nor in .yml or .json, so it is not read; give it such an ending, or move it out of here",
            "pipe.yaml: it is no file but a pipe, socket or device; delete it",
            "round: the link leads to a directory that holds it; delete it",
        ]
    );
    other.write("new.yaml", &pod("n", "1"));
    std::fs::create_dir(world.path("not-mounted-yet")).unwrap();
    world.write("not-mounted-yet/m.yaml", &pod("m", "1"));
    let objects = world.open();
    assert_eq!(pods(&objects), ["s/a", "s/b", "s/c", "s/m", "s/n"]);
    assert_eq!(label(&objects, "m").as_deref(), Some("1"));
}

#[test]
fn a_directory_that_cannot_be_listed_is_an_error_and_not_empty() {
    let world = World::new();
    assert_eq!(pods(&world.open()), [""; 0]);
    std::fs::remove_dir(world.path("")).unwrap();
    let error = world_error(&world);
    assert!(matches!(error, ObjectsError::Missing(_)));
    let path = world.state.join("objects");
    assert_eq!(
        error.to_string(),
        format!(
            "there is no directory {}; create it, mount what should be there, or set `stateDir` to where it is",
            path.display()
        )
    );
    std::fs::write(&path, "").unwrap();
    assert_eq!(
        world_error(&world).to_string(),
        format!(
            "cannot list {}: Not a directory (os error 20); objects that cannot be seen are not taken as absent, so \
             make it readable",
            path.display()
        )
    );
}

fn world_error(world: &World) -> ObjectsError {
    super::super::Objects::open(&world.state).err().unwrap()
}

#[test]
fn of_two_objects_with_one_name_the_first_by_file_name_is_in_force() {
    let world = World::with(&[
        ("b.yaml", &format!("{}---\n{}", pod("x", "b"), pod("x", "b again"))),
        ("a.yaml", &pod("x", "a")),
        ("c.yaml", &format!("{}---\n{}", pool("p", "10.0.0.0/24"), pod("y", "1"))),
        (
            "d.yaml",
            "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {cidr: 10.1.0.0/24}}",
        ),
    ]);
    let objects = world.open();
    assert_eq!(label(&objects, "x").as_deref(), Some("a"));
    assert_eq!(objects.pools().next().unwrap().1.cidr.to_string(), "10.0.0.0/24");
    assert!(objects.broken().is_empty());
    assert_eq!(
        told(&objects),
        [
            "b.yaml: Pod s/x: metadata.name: Pod s/x is also written in a.yaml, which comes first by name and is in force; delete one of the two",
            "b.yaml: Pod s/x: metadata.name: Pod s/x is also written in a.yaml, which comes first by name and is in force; delete one of the two",
            "d.yaml: IPPool p: metadata.name: EgressPool p is also written in c.yaml, which comes first by name and is in force; delete one of the two",
        ]
    );
    world.delete("a.yaml");
    let objects = world.open();
    assert_eq!(label(&objects, "x").as_deref(), Some("b"));
    assert_eq!(
        told(&objects)[0],
        "b.yaml: Pod s/x: metadata.name: Pod s/x is written twice in b.yaml; the first is in force, delete one"
    );
}

#[test]
fn the_first_by_file_name_is_in_force_even_if_it_is_broken() {
    let world = World::with(&[
        ("a.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: x, namespace: s, labels: 5}}"),
        ("b.yaml", &pod("x", "b")),
    ]);
    let objects = world.open();
    assert_eq!(
        (pods(&objects), objects.broken().into_iter().collect()),
        (vec![], vec!["Pod s/x".to_owned()])
    );
    assert_eq!(objects.problems().len(), 2);
}

#[test]
fn of_two_pools_that_overlap_the_older_or_the_smaller_name_wins_and_the_other_is_broken() {
    let world = World::with(&[
        ("a.yaml", &pool("wide", "10.0.0.0/16")),
        ("b.yaml", &format!("{}---\n{}", pool("blue", "10.0.1.0/24"), pool("far", "10.2.0.0/24"))),
    ]);
    let objects = world.settle();
    assert_eq!(objects.pools().map(|(name, _)| name).collect::<Vec<_>>(), ["blue", "far"]);
    assert_eq!(objects.broken().into_iter().collect::<Vec<_>>(), ["EgressPool wide"]);
    assert_eq!(
        told(&objects),
        [
            "a.yaml: EgressPool wide: spec.cidr: 10.0.0.0/16 overlaps 10.0.1.0/24 of EgressPool blue (b.yaml), which has the smaller name and keeps the addresses; this pool cannot be used until one of the two has another cidr"
        ]
    );
    let since = "name: wide, creationTimestamp: '2026-01-01T00:00:00Z'";
    world.write("a.yaml", &pool("wide", "10.0.0.0/16").replace("name: wide", since));
    let objects = world.open();
    assert_eq!(
        objects.pools().map(|(name, _)| name).collect::<Vec<_>>(),
        ["far", "wide"],
        "who has no time is younger"
    );
    world.write("b.yaml", &pool("far", "10.2.0.0/24"));
    let objects = world.open();
    assert_eq!(objects.pools().map(|(name, _)| name).collect::<Vec<_>>(), ["far", "wide"]);
    assert!(objects.broken().is_empty() && objects.problems().is_empty());
}

#[test]
fn a_thousand_broken_files_are_a_thousand_problems_and_the_rest_works() {
    let world = World::with(&[("ok.yaml", &pod("ok", "1"))]);
    for i in 0..1000 {
        let text = match i % 4 {
            0 => "a: [",
            1 => "{kind: Pod}",
            2 => "\u{fffd}\u{1}",
            _ => "{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: p}, spec: {cidr: x}}",
        };
        world.write(&format!("bad/{i:04}.yaml"), text);
    }
    let objects = world.settle();
    // The pools also share one name, so all but the first are duplicates too.
    let files: std::collections::BTreeSet<String> = objects.problems().into_iter().map(|p| p.file).collect();
    assert_eq!(files.len(), 1000);
    assert_eq!(objects.problems().len(), 1000 + 249);
    assert_eq!(pods(&objects), ["s/ok"]);
    assert_eq!(objects.broken().into_iter().collect::<Vec<_>>(), ["EgressPool p"]);
}

#[test]
fn a_view_for_some_pods_holds_them_their_gateways_and_all_pools_and_nodes() {
    let world = World::with(&[(
        "all.yaml",
        "
{apiVersion: v1, kind: List, items: [
  {apiVersion: v1, kind: Namespace, metadata: {name: s}},
  {apiVersion: v1, kind: Namespace, metadata: {name: gw}},
  {apiVersion: v1, kind: Namespace, metadata: {name: other}},
  {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: s}},
  {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: s}},
  {apiVersion: v1, kind: Pod, metadata: {name: g, namespace: gw}},
  {apiVersion: v1, kind: Pod, metadata: {name: z, namespace: other}},
  {apiVersion: v1, kind: Pod, metadata: {name: y, namespace: other, labels: 1}},
  {apiVersion: v1, kind: Node, metadata: {name: n1}},
  {apiVersion: v1, kind: Node, metadata: {name: n2}},
  {apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: b}, spec: {cidrs: [10.96.0.0/16, 'fd00:96::/112']}},
  {apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: a}, spec: {cidrs: [10.96.0.0/16]}},
  {apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: p}, spec: {cidr: 10.10.10.0/28}}]}
",
    )]);
    let config = Config { cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()], ..Config::default() };
    let endpoint = Endpoint {
        pod: PodName::new("gw", "g"),
        uid: None,
        attachment: "n/c/eth0".into(),
        node: "n1".into(),
        underlay: vec![],
        vni: 4098,
        mac: crate::addr::Mac::default(),
        addresses: vec![],
        state: EndpointState::Ready,
        generation: 1,
        problems: vec![],
    };
    let objects = world.open();
    let asked = [PodName::new("s", "a"), PodName::new("s", "none")];
    let some = objects.view_for(&config, &asked, vec![endpoint.clone()]);
    assert_eq!(some.pods.keys().map(ToString::to_string).collect::<Vec<_>>(), ["gw/g", "s/a"]);
    assert_eq!(some.namespaces.keys().collect::<Vec<_>>(), ["gw", "s"]);
    let all = objects.view(&config, vec![endpoint]);
    assert_eq!((all.pods.len(), all.namespaces.len()), (4, 3));
    for view in [&some, &all] {
        assert_eq!(view.nodes.keys().collect::<Vec<_>>(), ["n1", "n2"]);
        assert_eq!(view.pools.keys().collect::<Vec<_>>(), ["p"]);
        assert_eq!(format!("{:?}", view.service_cidrs), "[10.96.0.0/16, fd00:96::/112]");
        assert_eq!(view.broken.iter().collect::<Vec<_>>(), ["Pod other/y"]);
        assert_eq!((view.endpoints.len(), &view.cluster_cidrs), (1, &config.cluster_cidrs));
    }
}
