//! What the cache may and may not hide.

use std::fs::{File, FileTimes};
use std::time::Duration;

use super::super::Objects;
use super::world::{World, exists, label, pod, pods, pool, told};

#[test]
fn nothing_changed_is_served_from_the_cache_and_does_not_write_it() {
    let world =
        World::with(&[("a.yaml", &pod("a", "1")), ("d/b.yaml", &pod("b", "1")), ("bad.yaml", "a: [")]);
    let first = world.settle();
    let written = std::fs::read(world.cache()).unwrap();
    // Times of the rename tell whether it was replaced.
    let before = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(world.cache()).unwrap());
    let second = world.open();
    let after = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(world.cache()).unwrap());
    assert_eq!((before, written), (after, std::fs::read(world.cache()).unwrap()));
    assert_eq!((pods(&first), told(&first)), (pods(&second), told(&second)));
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert!(!exists(&world.state.join("cache/objects.new")));
}

#[test]
fn every_kind_of_change_is_seen_at_the_next_open() {
    let world = World::with(&[("a.yaml", &pod("a", "1")), ("b.yaml", &pod("b", "1"))]);
    world.settle();
    world.write("a.yaml", &pod("a", "changed"));
    assert_eq!(label(&world.settle(), "a").as_deref(), Some("changed"));
    world.write("a.yaml", &pod("a", "CHANGED"));
    assert_eq!(label(&world.settle(), "a").as_deref(), Some("CHANGED"), "rewritten in place, same size");
    world.delete("b.yaml");
    assert_eq!(pods(&world.settle()), ["s/a"]);
    world.write("new/c.yaml", &pod("c", "1"));
    assert_eq!(pods(&world.settle()), ["s/a", "s/c"]);
    world.write("new/d.yaml", &pod("d", "1"));
    assert_eq!(pods(&world.settle()), ["s/a", "s/c", "s/d"]);
    world.rename("new", "old");
    assert_eq!(world.settle().file(crate::api::Kind::Pod, "s/c").as_deref(), Some("old/c.yaml"));
    world.rename("a.yaml", "a.yaml.off");
    assert_eq!(pods(&world.settle()), ["s/c", "s/d"]);
    world.rename("old/c.yaml", "old/d.yaml");
    assert_eq!(pods(&world.settle()), ["s/c"]);
    std::fs::remove_dir_all(world.path("old")).unwrap();
    assert_eq!(pods(&world.settle()), [""; 0]);
}

#[test]
fn of_so_many_files_that_two_look_at_them_each_change_is_seen() {
    let world = World::new();
    for i in 0..4_010 {
        world.write(&format!("{:02}/{i:04}.yaml", i / 500), &pod(&format!("p{i}"), "1"));
    }
    assert_eq!(world.settle().pods().count(), 4_010);
    // The ends of both halves, which meet within a folder.
    for i in [0, 2_004, 2_005, 4_009] {
        world.write(&format!("{:02}/{i:04}.yaml", i / 500), &pod(&format!("p{i}"), "2"));
        assert!(!world.is_cached(), "{i}");
        let objects = world.settle();
        let marked = objects.pods().filter(|(name, _)| label(&objects, &name.name).as_deref() == Some("2"));
        assert_eq!(marked.count(), [0, 2_004, 2_005, 4_009].iter().filter(|seen| **seen <= i).count());
    }
}

#[test]
fn a_rewrite_with_the_old_size_and_modification_time_is_seen() {
    let world = World::with(&[("a.yaml", &pod("a", "1"))]);
    world.settle();
    let modified = std::fs::metadata(world.path("a.yaml")).unwrap().modified().unwrap();
    world.write("a.yaml", &pod("a", "2"));
    let file = File::options().write(true).open(world.path("a.yaml")).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    // While it is open for writing, what it held stays in force.
    assert_eq!(label(&world.open(), "a").as_deref(), Some("1"));
    drop(file);
    assert_eq!(label(&world.open(), "a").as_deref(), Some("2"));
}

#[test]
fn a_file_rewritten_right_after_it_was_read_is_seen() {
    let world = World::new();
    for i in 100..400 {
        world.write("a.yaml", &pod("a", &i.to_string()));
        assert_eq!(label(&world.open(), "a"), Some(i.to_string()));
    }
}

#[test]
fn a_file_added_right_after_the_directory_was_listed_is_seen() {
    let world = World::new();
    for i in 0..100 {
        world.write(&format!("{i}.yaml"), &pod(&format!("p{i}"), "1"));
        assert_eq!(world.open().pods().count(), i + 1);
    }
}

#[test]
fn a_torn_or_foreign_cache_is_rebuilt() {
    let world = World::with(&[("a.yaml", &pod("a", "1"))]);
    world.settle();
    let good = std::fs::read(world.cache()).unwrap();
    let mut zeros = good.clone();
    zeros[good.len() / 2..].fill(0);
    for torn in [&b""[..], b"{}", &good[..good.len() - 1], &zeros] {
        std::fs::write(world.cache(), torn).unwrap();
        assert_eq!(label(&world.open(), "a").as_deref(), Some("1"));
        // Whoever finds the cache's lock taken leaves the writing to the next one, and a child that another test is just
        // starting holds every lock of this process until it executes.
        for _ in 0..100 {
            if std::fs::read(world.cache()).unwrap() == good {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            world.open();
        }
        assert_eq!(std::fs::read(world.cache()).unwrap(), good);
    }
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_and_nothing_else() {
    let world = World::with(&[("a.yaml", &pod("a", "1"))]);
    std::fs::write(world.state.join("cache"), "in the way").unwrap();
    assert_eq!(label(&world.open(), "a").as_deref(), Some("1"));
    world.write("a.yaml", &pod("a", "2"));
    assert_eq!(label(&world.open(), "a").as_deref(), Some("2"));
    assert_eq!(std::fs::read(world.state.join("cache")).unwrap(), b"in the way");
}

#[test]
fn what_a_killed_writer_left_is_taken_over() {
    let world = World::with(&[("a.yaml", &pod("a", "1"))]);
    std::fs::create_dir(world.state.join("cache")).unwrap();
    std::fs::write(world.state.join("cache/objects.new"), vec![7; 100_000]).unwrap();
    world.settle();
    let names = std::fs::read_dir(world.state.join("cache")).unwrap().map(|e| e.unwrap().file_name());
    assert_eq!(
        names.collect::<std::collections::BTreeSet<_>>(),
        ["objects".into(), "objects.lock".into()].into()
    );
}

#[test]
fn a_file_that_no_longer_parses_keeps_its_last_good_objects_and_says_so() {
    let two = format!("{}---\n{}", pod("a", "1"), pool("p", "x"));
    let world = World::with(&[("a.yaml", &two), ("b.yaml", &pod("b", "1"))]);
    let good = world.settle();
    let pool_problem = "a.yaml: EgressPool p: spec.cidr: `x` is not an address prefix such as 10.10.10.0/31 or fd00:10::/127";
    assert_eq!(told(&good), [pool_problem]);
    world.write("a.yaml", &format!("{}---\n[", pod("a", "2")));
    world.write("b.yaml", "");
    for _ in 0..3 {
        let kept = world.settle();
        assert_eq!(label(&kept, "a").as_deref(), Some("1"));
        assert_eq!(label(&kept, "b").as_deref(), Some("1"));
        assert_eq!(kept.fingerprint(), good.fingerprint());
        let told = told(&kept);
        assert_eq!(told.len(), 3, "{told:#?}");
        assert!(told[0].starts_with("a.yaml: not YAML: line 6, column 1: "), "{}", told[0]);
        assert!(
            told[0].ends_with("; correct the file; until then the 2 objects last read from it stay in force")
        );
        assert_eq!(told[1], pool_problem);
        assert_eq!(
            told[2],
            "b.yaml: the file is empty; write an object into it, or delete it; until then the 1 object last read from \
             it stay in force"
        );
        // Broken otherwise: still the last good.
        world.write("a.yaml", &format!("{}---\n[[", pod("a", "3")));
    }
    world.write("a.yaml", &pod("a", "4"));
    world.delete("b.yaml");
    let mended = world.settle();
    assert_eq!(
        (label(&mended, "a").as_deref(), pods(&mended), told(&mended)),
        (Some("4"), vec!["s/a".into()], vec![])
    );
}

#[test]
fn a_file_that_cannot_be_read_any_more_keeps_its_last_good_objects() {
    let world = World::with(&[("a.yaml", &pod("a", "1"))]);
    world.settle();
    world.delete("a.yaml");
    // A regular file that answers every read with an I/O error, also to root.
    std::os::unix::fs::symlink("/proc/self/mem", world.path("a.yaml")).unwrap();
    for _ in 0..2 {
        let kept = world.open();
        assert_eq!(label(&kept, "a").as_deref(), Some("1"));
        assert_eq!(
            told(&kept),
            [
                "a.yaml: cannot be read: Input/output error (os error 5); make it readable, or delete it; until then the 1 \
              object last read from it stay in force"
            ]
        );
    }
    world.delete("a.yaml");
    std::os::unix::fs::symlink("gone", world.path("a.yaml")).unwrap();
    assert_eq!(label(&world.settle(), "a").as_deref(), Some("1"));
    assert_eq!(label(&world.open(), "a").as_deref(), Some("1"));
    world.delete("a.yaml");
    assert_eq!(pods(&world.open()), [""; 0]);
}

#[test]
fn the_fingerprint_follows_the_objects_in_force_and_nothing_else() {
    let world = World::with(&[("a.yaml", &pod("a", "1")), ("b.yaml", &pod("a", "other"))]);
    let first = world.open().fingerprint();
    world.write("a.yaml", &format!("# a comment\n{}", pod("a", "1")));
    world.write("b.yaml", &pod("a", "a loser changes"));
    world.write("c.yaml", "nonsense");
    world.rename("a.yaml", "0.yaml");
    assert_eq!(world.open().fingerprint(), first);
    world.write("0.yaml", &pod("a", "2"));
    let second = world.open().fingerprint();
    assert_ne!(second, first);
    let outline = world.open().fingerprint_of_outline();
    world.write("0.yaml", &pod("a", "3"));
    assert_eq!(world.open().fingerprint_of_outline(), outline, "it has nothing of pods");
    world.write(
        "pool.yaml",
        "{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: p}, spec: {cidr: 10.9.0.0/24}}",
    );
    assert_ne!(world.open().fingerprint_of_outline(), outline);
    world.delete("pool.yaml");
    world.write("0.yaml", &pod("a", "2"));
    world.write("d.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: z, labels: 1}}");
    assert_ne!(world.open().fingerprint(), second, "the list of the broken decides too");
    world.delete("d.yaml");
    world.write("0.yaml", &pod("a", "1"));
    assert_eq!(world.open().fingerprint(), first);
}

#[test]
fn many_at_once_see_whole_objects_and_leave_a_good_cache() {
    let world = World::new();
    for i in 0..50 {
        world.write(&format!("{i}.yaml"), &pod(&format!("p{i}"), "0"));
    }
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut last = 0;
                while last < 40 {
                    let objects = world.open();
                    assert_eq!((objects.pods().count(), told(&objects)), (50, vec![]));
                    let now: usize = label(&objects, "p7").unwrap().parse().unwrap();
                    assert!(now >= last, "an open went back from {last} to {now}");
                    last = now;
                }
            });
        }
        for v in 1..=40 {
            world.write(".7.new", &pod("p7", &v.to_string()));
            world.rename(".7.new", "7.yaml");
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let objects = world.settle();
    assert_eq!(label(&objects, "p7").as_deref(), Some("40"));
    assert!(!exists(&world.state.join("cache/objects.new")));
}

/// The cache of an older build must not be read with other eyes: if this fails, raise `image::FORMAT` and write the
/// new shape here.
#[test]
fn the_shape_of_compiled_objects_is_pinned_to_its_format() {
    let world = World::with(&[(
        "a.yaml",
        "
{apiVersion: v1, kind: List, items: [
  {apiVersion: v1, kind: Namespace, metadata: {name: s, labels: {a: b}, annotations: {c: d}}},
  {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: s, uid: u, labels: {a: b}, annotations: {c: d},
    ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: set, controller: true}]},
    spec: {nodeName: n, hostNetwork: true}},
  {apiVersion: v1, kind: Node, metadata: {name: n, labels: {a: b}}, spec: {podCIDRs: [10.244.0.0/24]},
    status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: ExternalIP, address: 192.0.2.2}]}},
  {apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: p}, spec: {cidr: 10.10.10.0/28}},
  {apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: b}, spec: {cidrs: [10.96.0.0/16]}}]}
",
    )]);
    let objects: Objects = world.open();
    assert_eq!(told(&objects), [""; 0]);
    let bodies: Vec<String> =
        (0..5).map(|i| String::from_utf8(objects.image.object(i).body.to_vec()).unwrap()).collect();
    assert_eq!(
        bodies,
        [
            r#"{"labels":{"a":"b"},"annotations":{"c":"d"}}"#,
            r#"{"uid":"u","labels":{"a":"b"},"annotations":{"c":"d"},"node":"n","host_network":true,"stateful_set":"set"}"#,
            r#"{"labels":{"a":"b"},"internal_ips":["192.0.2.1"],"other_ips":["192.0.2.2"],"pod_cidrs":["10.244.0.0/24"]}"#,
            r#"{"name":"p","kind":"EgressPool","cidr":"10.10.10.0/28","block_size":31,"node_selector":"all()","gateway_namespaces":null,"client_namespaces":null,"source":"Pool","nat_outgoing":false,"strict_affinity":false,"announce":"Auto","cooldown_seconds":60,"disabled":false,"created":null}"#,
            r#"["10.96.0.0/16"]"#,
        ]
    );
}

#[test]
fn who_is_told_of_a_file_reads_it_alone_and_what_is_more_than_contents_is_looked_at_whole() {
    let two = format!("{}---\n{}", pod("b", "1"), pod("c", "1"));
    let world = World::with(&[
        ("a.yaml", &pod("a", "1")),
        ("d/b.yaml", &two),
        ("p.yaml", &pool("p", "10.0.0.0/24")),
        ("z.yaml", "a: ["),
    ]);
    let first = world.settle();
    let follow = |told: &[&str]| {
        Objects::follow(&world.state, &first, told.iter().map(std::path::Path::new))
            .map(|objects| [label(&objects, "a"), label(&objects, "c")].map(Option::unwrap_or_default))
    };
    let said = |a: &str, c: &str| Some([a.to_owned(), c.to_owned()]);
    world.write("a.yaml", &pod("a", "22"));
    world.write("d/b.yaml", &two.replace("'1'", "'333'"));
    assert_eq!(follow(&[]), said("1", "1"), "nobody told of a file");
    assert_eq!(follow(&["d/b.yaml"]), said("1", "333"));
    assert_eq!(follow(&["a.yaml", "d/b.yaml"]), said("22", "333"));
    // What is no file of last time, or comes, goes, breaks, is mended or may overlap with others.
    for (path, text) in [
        ("new.yaml", pod("n", "1")),
        ("d/b.yaml", pod("b", "1")),
        ("a.yaml", pod("renamed", "1")),
        ("a.yaml", pod("a", "1").replace("labels: {v: '1'}", "labels: 7")),
        ("p.yaml", pool("p", "10.0.0.0/25")),
        ("z.yaml", pod("z", "1")),
    ] {
        world.write(path, &text);
        assert_eq!(follow(&[path]), None, "{path}: {text}");
    }
    world.delete("a.yaml");
    assert_eq!(follow(&["a.yaml"]), None);
    std::os::unix::fs::symlink("/", world.path("a.yaml")).unwrap();
    assert_eq!(follow(&["a.yaml"]), None);
    assert_eq!(follow(&["d"]), None);
    assert_eq!(follow(&["..data"]), None);
}

#[test]
fn what_was_followed_is_what_a_file_last_held_once_it_is_kept() {
    let world = World::with(&[("a.yaml", &pod("a", "1")), ("b.yaml", &pod("b", "1"))]);
    let first = world.settle();
    world.write("a.yaml", &pod("a", "2"));
    let path = [std::path::Path::new("a.yaml")];
    let followed = Objects::follow(&world.state, &first, path).unwrap();
    followed.keep(&world.state);
    world.write("a.yaml", "kind: [");
    let again = Objects::follow(&world.state, &followed, path).unwrap();
    for objects in [&again, &world.open()] {
        assert_eq!(label(objects, "a").as_deref(), Some("2"), "torn, it keeps what it last held");
        assert!(told_of(objects, "1 object last read"), "{:?}", told(objects));
    }
    // Changed again and again, an image does not grow without end.
    let mut objects = again;
    let mut anew = 0;
    for i in 0..200 {
        world.write("a.yaml", &pod("a", &format!("{i:0100}")));
        objects = Objects::follow(&world.state, &objects, path).unwrap_or_else(|| {
            anew += 1;
            Objects::open_again(&world.state, Some(&objects)).unwrap()
        });
        assert_eq!(label(&objects, "a"), Some(format!("{i:0100}")));
    }
    assert!(anew > 1, "{anew}");
}

fn told_of(objects: &Objects, words: &str) -> bool {
    told(objects).iter().any(|line| line.contains(words))
}
