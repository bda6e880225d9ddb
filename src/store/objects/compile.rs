//! Files → image: what each holds, and what follows from all together.
//!
//! In: what was read of each file, and what the last image kept of it. Out: records and the verdict. Pure.
//!
//! Between files: of two objects with one kind and name the first by file name is in force, even if it is broken; of
//! two policies with one name ours before Calico's; of two pools that overlap the one with the smaller name. Losing an argument is a problem; only the pool that cannot be
//! used is broken by it.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::image::{Compiled, FileRecord, FileRow, Image, ObjectRow, ReadFile, Verdict, slot};
use super::stamp::Stamp;
use crate::api::overlap::{Range, Use, overlaps};
use crate::api::{Kind, Object, Reading};
use crate::egress::model::{Pool, PoolKind, PoolSource};
use crate::problem::Problem;

/// A file that was read now. If part of it could not be read, what it last held stays in force.
pub(super) fn read<'a>(
    path: Cow<'a, CStr>,
    stamp: Stamp,
    reading: Reading,
    before: Option<(&'a Image, FileRow<'a>)>,
) -> ReadFile<'a> {
    let mut problems = reading.problems;
    if !reading.whole
        && let Some((image, row)) = before
        && !row.objects.is_empty()
    {
        let objects = kept(image, &row);
        let count =
            if objects.len() == 1 { "1 object".to_owned() } else { format!("{} objects", objects.len()) };
        // Problems of the objects that stay are still true; those of what cannot be read are told anew.
        problems.retain(|p| p.object.is_empty());
        for problem in &mut problems {
            problem.message += &format!("; until then the {count} last read from it stay in force");
        }
        let old: Vec<Problem> = serde_json::from_slice(row.problems).unwrap_or_default();
        problems.extend(old.into_iter().filter(|p| !p.object.is_empty()));
        let problems = json_list(&problems);
        return ReadFile { path, stamp, objects, problems };
    }
    let objects = reading.objects.into_iter().map(|written| {
        let body = written.object.as_ref().map(body).unwrap_or_default();
        Compiled {
            kind: written.kind,
            shares: matches!(&written.object, Some(Object::Pod(pod)) if pod.host_network),
            digest: digest(written.kind, &written.name, &body),
            name: written.name.into(),
            body: body.into(),
        }
    });
    let (objects, problems) = (objects.collect(), json_list(&problems));
    ReadFile { path, stamp, objects, problems }
}

fn kept<'a>(image: &'a Image, row: &FileRow<'a>) -> Vec<Compiled<'a>> {
    let compiled = |i| {
        let ObjectRow { kind, name, body, shares, digest } = image.object(i);
        Compiled { kind, name: name.into(), body: body.into(), shares, digest }
    };
    row.objects.clone().map(compiled).collect()
}

/// JSON, because it can be looked at; an object is decoded alone, in about a microsecond.
fn body(object: &Object) -> Vec<u8> {
    let written = match object {
        Object::Namespace(namespace) => serde_json::to_vec(namespace),
        Object::Pod(pod) => serde_json::to_vec(pod),
        Object::Node(node) => serde_json::to_vec(node),
        Object::Pool(pool) => serde_json::to_vec(pool),
        Object::ServiceCidr(cidrs) | Object::Range(cidrs) | Object::ApiServer(cidrs) => {
            serde_json::to_vec(cidrs)
        }
        Object::Policy(policy) => serde_json::to_vec(policy),
    };
    // An object that could not be written would count as broken, so what names it is held.
    written.unwrap_or_default()
}

fn json_list<T: serde::Serialize>(list: &[T]) -> Vec<u8> {
    if list.is_empty() { Vec::new() } else { serde_json::to_vec(list).unwrap_or_default() }
}

/// What follows from all files, in the order of their names.
pub(super) fn verdict(files: &[FileRecord<'_>]) -> Verdict {
    let mut problems = Vec::new();
    let mut first: BTreeMap<(u8, &str), Winner<'_>> = BTreeMap::new();
    let mut number = 0;
    for file in files {
        for (place, object) in file.objects().enumerate() {
            let winner = Winner { number, file, place };
            number += 1;
            match first.entry((slot(object.kind), object.name)) {
                Entry::Vacant(place) => {
                    place.insert(winner);
                }
                Entry::Occupied(mut place) if winner.outranks(place.get()) => {
                    let loser = place.insert(winner);
                    problems.push(twice(&loser, place.get()));
                }
                Entry::Occupied(place) => problems.push(twice(&winner, place.get())),
            }
        }
    }
    let mut broken: BTreeSet<String> = BTreeSet::new();
    first.retain(|_, winner| {
        let right = !winner.object().body.is_empty();
        if !right {
            broken.insert(winner.named());
        }
        right
    });
    for lost in settle_pools(&first) {
        let (loser, problem) = lost;
        problems.push(problem);
        if let Some(winner) = first.remove(&(slot(Kind::EgressPool), loser)) {
            broken.insert(winner.named());
        }
    }
    let broken = json_list(&broken.into_iter().collect::<Vec<String>>());
    Verdict {
        index: first.values().map(|w| w.number).collect(),
        problems: json_list(&problems),
        fingerprint: fingerprint(first.values().map(|w| w.object().digest), &broken),
        broken,
    }
}

/// What stands for an object in fingerprints. The standard library's hash may change with the compiler; then each node plans once
/// anew, no more.
fn digest(kind: Kind, name: &str, body: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    (slot(kind), kind, name, body).hash(&mut hash);
    hash.finish()
}

/// Of the objects in force, in their order, and the list of the broken.
pub(super) fn fingerprint(objects: impl Iterator<Item = u64>, broken: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    objects.for_each(|digest| hash.write_u64(digest));
    broken.hash(&mut hash);
    hash.finish()
}

/// The object in force under its name: where it stands, because there are as many as pods.
struct Winner<'f> {
    number: usize,
    file: &'f FileRecord<'f>,
    /// Among the file's objects.
    place: usize,
}

impl<'f> Winner<'f> {
    fn object(&self) -> ObjectRow<'f> {
        self.file.object(self.place)
    }

    fn file(&self) -> String {
        self.file.path().to_string_lossy().into_owned()
    }

    fn named(&self) -> String {
        let object = self.object();
        object.kind.named(object.name)
    }

    /// Its name and, where it has one, its file.
    fn placed(&self) -> String {
        let (name, file) = (self.named(), self.file());
        if name == file { name } else { format!("{name} ({file})") }
    }

    /// Whether it is in force although the other comes first: who writes our kind of policy beside Calico's means ours.
    fn outranks(&self, other: &Winner<'_>) -> bool {
        let kinds = (self.object().kind, other.object().kind);
        kinds == (Kind::EgressGatewayPolicy, Kind::CalicoEgressGatewayPolicy)
    }
}

fn twice(loser: &Winner<'_>, winner: &Winner<'_>) -> Problem {
    let calicos = Kind::CalicoEgressGatewayPolicy;
    let message = if loser.object().kind == calicos && winner.object().kind != calicos {
        format!(
            "{} of egret.dev in {} has the same name and is in force, because an annotation cannot tell the two apart; \
             delete or rename one of them",
            winner.named(),
            winner.file()
        )
    } else if loser.file.path() == winner.file.path() {
        format!("{} is written twice in {}; the first is in force, delete one", winner.named(), winner.file())
    } else {
        format!(
            "{} is also written in {}, which comes first by name and is in force; delete one of the two",
            winner.named(),
            winner.file()
        )
    };
    Problem::new(loser.named(), "Duplicate", message)
        .file(loser.file())
        .at("metadata.name")
        .value(loser.object().name)
}

/// The pools that lose their addresses to another, each with the problem that says so.
fn settle_pools<'f>(objects: &BTreeMap<(u8, &'f str), Winner<'f>>) -> Vec<(&'f str, Problem)> {
    let pools = slot(Kind::EgressPool);
    let mut ranges = Vec::new();
    for ((_, name), winner) in objects.range((pools, "")..(pools + 1, "")) {
        if let Ok(pool) = serde_json::from_slice::<Pool>(winner.object().body) {
            let usage = match (pool.kind, pool.source) {
                (PoolKind::EgressPool, PoolSource::Pool) => Use::Leased,
                (PoolKind::EgressPool, PoolSource::PodAddress) => Use::Pods,
                (PoolKind::IPPool, PoolSource::Pool) => Use::Calicos,
                (PoolKind::IPPool, PoolSource::PodAddress) => Use::CalicosPods,
            };
            ranges.push(Range { name, cidr: pool.cidr, usage, created: pool.created });
        }
    }
    let mut lost = Vec::new();
    for overlap in overlaps(&ranges) {
        let (loser, winner) = (objects.get(&(pools, overlap.loser)), objects.get(&(pools, overlap.winner)));
        let (Some(loser), Some(winner)) = (loser, winner) else { continue };
        let message = format!(
            "{} overlaps {} of {}, which {} and keeps the addresses; this pool cannot be used until one of the two has \
             another cidr",
            overlap.cidr,
            overlap.kept,
            winner.placed(),
            if overlap.is_older { "is older" } else { "has the smaller name" },
        );
        let problem = Problem::new(loser.named(), "PoolOverlap", message).file(loser.file()).at("spec.cidr");
        lost.push((overlap.loser, problem.value(overlap.cidr.to_string())));
    }
    lost
}
