//! The property: after any changes, an open with the cache says what an open without one says, and so does who is told which files
//! changed.
//!
//! The one thing a cache may add is memory: a file that cannot be read keeps what it last held. So the model keeps, per
//! path, the last text that could be read, and is opened afresh.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::super::Objects;
use super::world::{World, pod, pool};
use crate::config::Config;

#[derive(Debug, Clone)]
enum Change {
    Write(usize, usize),
    Delete(usize),
    Rename(usize, usize),
    Open,
}

const PATHS: [&str; 5] = ["a.yaml", "b.yaml", "c/a.yml", "c/d/b.json", "z.yaml"];

/// Texts of equal and different size, right, broken, and beyond reading.
fn text(i: usize) -> String {
    match i {
        0 => pod("a", "1"),
        1 => pod("a", "2"),
        2 => pod("b", "1"),
        3 => format!("{}---\n{}", pool("p", "10.0.0.0/24"), pod("b", "2")),
        4 => pool("q", "10.0.0.0/28"),
        5 => pool("p", "10.1.0.1/24"),
        6 => "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"s\"}}".into(),
        7 => "{\"kind\": \"Rubbish\"}".into(),
        8 => "{\"kind\": [".into(),
        _ => " ".into(),
    }
}

impl Change {
    fn paths(&self) -> impl Iterator<Item = &'static Path> {
        let paths = match self {
            Change::Write(path, _) | Change::Delete(path) => vec![*path],
            Change::Rename(from, to) => vec![*from, *to],
            Change::Open => vec![],
        };
        paths.into_iter().map(|path| Path::new(PATHS[path]))
    }
}

fn change() -> impl Strategy<Value = Change> {
    let path = || 0..PATHS.len();
    prop_oneof![
        5 => (path(), 0..10usize).prop_map(|(p, t)| Change::Write(p, t)),
        2 => path().prop_map(Change::Delete),
        2 => (path(), path()).prop_map(|(a, b)| Change::Rename(a, b)),
        4 => Just(Change::Open),
    ]
}

/// What is now in the files, and per path the last text that an open could read.
#[derive(Default)]
struct Model {
    now: BTreeMap<usize, usize>,
    good: BTreeMap<usize, usize>,
}

impl Model {
    fn apply(&mut self, world: &World, change: &Change) {
        match *change {
            Change::Write(path, i) => {
                world.write(PATHS[path], &text(i));
                self.now.insert(path, i);
            }
            Change::Delete(path) => {
                if self.now.remove(&path).is_some() {
                    world.delete(PATHS[path]);
                }
            }
            Change::Rename(from, to) => {
                if let Some(i) = self.now.remove(&from) {
                    std::fs::create_dir_all(world.path(PATHS[to]).parent().unwrap()).unwrap();
                    world.rename(PATHS[from], PATHS[to]);
                    self.now.insert(to, i);
                }
            }
            Change::Open => {}
        }
    }

    /// What an open must say: the same as of a directory of the last good texts, without a cache.
    fn opened(&mut self) -> World {
        self.good.retain(|path, _| self.now.contains_key(path));
        for (path, i) in &self.now {
            // JSON readers refuse YAML.
            let whole = crate::api::read(PATHS[*path], text(*i).as_bytes()).whole;
            let remembers = self.good.get(path).is_some_and(|g| has_objects(*path, *g));
            if whole || !remembers {
                self.good.insert(*path, *i);
            }
        }
        let expected = World::new();
        for (path, i) in &self.good {
            expected.write(PATHS[*path], &text(*i));
        }
        expected
    }
}

fn has_objects(path: usize, i: usize) -> bool {
    !crate::api::read(PATHS[path], text(i).as_bytes()).objects.is_empty()
}

fn same(found: &Objects, expected: &Objects) {
    assert_eq!(found.view(&Config::default(), vec![]), expected.view(&Config::default(), vec![]));
    assert_eq!(found.fingerprint(), expected.fingerprint());
    let about = |objects: &Objects| {
        let all = objects.problems();
        all.into_iter().filter(|p| !p.object.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(about(found), about(expected));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn an_open_with_the_cache_says_what_an_open_without_it_says(
        changes in proptest::collection::vec(change(), 1..25),
        settle in any::<bool>(),
    ) {
        let world = World::new();
        let mut model = Model::default();
        // Who lives on and is told which files changed.
        let (mut last, mut told) = (None, BTreeSet::new());
        for change in &changes {
            model.apply(&world, change);
            told.extend(change.paths());
            if matches!(change, Change::Open) {
                let expected = model.opened().open();
                let told = std::mem::take(&mut told);
                let followed = last.as_ref().and_then(|last| Objects::follow(&world.state, last, told));
                let now = followed.unwrap_or_else(|| Objects::open_again(&world.state, last.as_ref()).unwrap());
                same(&now, &expected);
                last = Some(now);
                same(&world.open(), &expected);
            }
        }
        let expected = model.opened();
        if settle {
            same(&world.settle(), &expected.open());
        }
        same(&world.open(), &expected.open());
        if model.now == model.good {
            let (found, afresh) = (world.open(), world.open_afresh());
            assert_eq!(found.problems(), afresh.problems());
            same(&found, &afresh);
        }
    }
}
