//! The story: ten worlds after each other on one ground, grounds side by side.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use egret::egress::explain::Verdict;

use crate::dice::Dice;
use crate::judge::{self, Expected, Way};
use crate::stand::{Row, Stand, objects};
use crate::tally::Tally;
use crate::written::{WORLDS_PER_GROUND, Written, ground};

/// A run stops looking for more after so many worlds that differ.
const ENOUGH: usize = 5;
/// A world with clients of gateways, on a ground whose primary masquerades.
const SPOILT: u64 = 1040;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// What was found in some worlds.
#[derive(Default)]
struct Found {
    tally: Tally,
    worlds: u64,
    wrong: Vec<String>,
}

/// Raises the ground of these seeds and goes through them.
fn live(seeds: std::ops::Range<u64>, found: &Mutex<Found>) {
    let spoilt = std::env::var("EGRET_WORLDS_SPOIL").ok();
    let mut stand = Stand::raise(ground(seeds.start));
    let mut before = rows_of(&stand.predict());
    for seed in seeds.clone() {
        let (tally, rows, wrong) = world(&mut stand, seed, &before, spoilt.as_deref(), |_| ());
        let mut found = found.lock().unwrap();
        found.tally.add(&tally);
        found.worlds += 1;
        if !wrong.is_empty() {
            let dump = dump(&stand, seed, &rows, &wrong);
            found.wrong.push(format!(
                "world {seed} ({} differences; all in {}):\n  {}\n  alone: EGRET_WORLDS=1 EGRET_WORLDS_SEED={seed}; with what went before: \
                 EGRET_WORLDS={} EGRET_WORLDS_SEED={}",
                wrong.len(),
                dump.display(),
                wrong.iter().take(24).cloned().collect::<Vec<_>>().join("\n  "),
                seed - seeds.start + 1,
                seeds.start
            ));
        }
        if found.wrong.len() >= ENOUGH {
            return;
        }
        before = rows_of(&rows);
    }
}

fn rows_of(rows: &[Row]) -> Vec<Expected> {
    rows.iter().map(|row| row.expected.clone()).collect()
}

/// One world: written, reconciled, predicted, asked, judged. `spoil` is a line of shell for every node before pods ask, `lie` what is
/// made of the prediction: both to see that it is noticed.
fn world(
    stand: &mut Stand,
    seed: u64,
    before: &[Expected],
    spoil: Option<&str>,
    lie: impl Fn(&mut Vec<Expected>),
) -> (Tally, Vec<Row>, Vec<String>) {
    let written = Written::of(seed);
    stand.write(&written);
    stand.settle();
    let rows = stand.predict();
    let mut expected = rows_of(&rows);
    lie(&mut expected);
    let hidden = stand.hidden();
    let mut wrong =
        judge::leaks(&[before, &expected], &judge::without_nodes_resets(stand.capture.packets()), &hidden);
    wrong.iter_mut().for_each(|line| line.insert_str(0, "while it changed: "));
    stand.capture.restart();
    for node in stand.topology().node_numbers() {
        let _ = spoil.map(|line| stand.node(node).sh(line));
    }
    let ends = stand.end_flows();
    let asked = stand.ask();
    let packets = judge::without_nodes_resets(stand.capture.packets());
    wrong.extend(judge::differences(&expected, &asked, &packets, &hidden));
    if stand.capture.dropped() > 0 {
        wrong.push("the capture lost packets, so this world proves nothing".to_owned());
    }
    stand.begin_flows();
    wrong.extend(rows.iter().filter_map(says_otherwise));
    let mut dice = Dice::of(!seed);
    let row = &rows[dice.below(rows.len())];
    let mut said = stand.ask_program(row);
    // The program has the files in hand, and says of one that is no YAML that it might say otherwise.
    if let Some(end) = said.reason.find("; that is not certain") {
        said.reason.truncate(end);
    }
    if said != row.item {
        wrong.push(format!("`egret explain` says {said:?}, not {:?}", row.item));
    }
    wrong.extend(stand.pending(1 + u8::try_from(dice.below(3)).unwrap()));
    let mut tally = Tally { asked: asked.len(), packets: packets.len(), ends, ..Tally::default() };
    rows.iter().for_each(|row| tally.count(&row.item, &written.enforced));
    (tally, rows, wrong)
}

/// `list` and `explain` say the same of one destination, unless it is inside: that is not in the list.
fn says_otherwise(row: &Row) -> Option<String> {
    let mut listed: Vec<_> =
        row.listed.gateways.iter().filter_map(|gateway| gateway.egress_address).collect();
    listed.sort_unstable();
    listed.dedup();
    let (listed, item) = (if row.listed.action == Verdict::Gateway { listed } else { Vec::new() }, &row.item);
    let same = row.listed.action == item.action && listed == item.sources;
    (!same).then(|| format!("list says {:?}, explain {item:?}", row.listed))
}

/// Keeps what is needed to look at it in peace.
fn dump(stand: &Stand, seed: u64, rows: &[Row], wrong: &[String]) -> PathBuf {
    let to = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("worlds/{seed}"));
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(to.join("objects")).unwrap();
    for entry in fs::read_dir(objects()).unwrap().flatten() {
        let _ = fs::copy(entry.path(), to.join("objects").join(entry.file_name()));
    }
    let said = |row: &Row| {
        format!("{} to {}: {}: {:?}\n", row.expected.pod, row.expected.to, row.expected.way, row.item)
    };
    fs::write(to.join("predicted"), rows.iter().map(said).collect::<String>()).unwrap();
    fs::write(to.join("differences"), wrong.join("\n")).unwrap();
    fs::write(to.join("topology"), format!("{:#?}", stand.topology())).unwrap();
    to
}

/// `EGRET_WORLDS`: how many (50; more in `scripts/soak`). `EGRET_WORLDS_SEED`: the first one's; each further one has the next.
#[test]
fn in_every_world_the_outside_sees_what_was_predicted_and_nothing_else() {
    let worlds = number("EGRET_WORLDS", 50);
    let first = number("EGRET_WORLDS_SEED", 1000);
    println!("EGRET_WORLDS={worlds} EGRET_WORLDS_SEED={first}");
    let begun = Instant::now();
    let mut grounds = Vec::new();
    let mut seed = first;
    while seed < first + worlds {
        let end = ((seed / WORLDS_PER_GROUND + 1) * WORLDS_PER_GROUND).min(first + worlds);
        grounds.push(seed..end);
        seed = end;
    }
    let (grounds, found) = (Mutex::new(grounds.into_iter()), Mutex::new(Found::default()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = grounds.lock().unwrap().next();
                    let Some(seeds) = next else { return };
                    live(seeds, &found);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    let each = begun.elapsed() / u32::try_from(found.worlds.max(1)).unwrap();
    println!("{}", found.tally.table());
    println!("soak: {} worlds, {each:.1?} each: {}", found.worlds, found.tally);
    assert!(found.wrong.is_empty(), "{}", found.wrong.join("\n\n"));
    let missing = found.tally.missing();
    assert!(worlds < 50 || missing.is_empty(), "never met: {missing:#?}");
    assert!(each < Duration::from_secs(120), "{each:?} each");
}

/// A check that cannot fail is none: one wrong prediction, one node that lost its decisions, and both are named.
#[test]
fn a_wrong_prediction_and_a_kernel_that_lost_its_decisions_are_noticed() {
    let mut stand = Stand::raise(ground(SPOILT));
    let lie = |rows: &mut Vec<Expected>| {
        let row = rows.iter_mut().find(|row| matches!(row.way, Way::Through(_))).unwrap();
        row.way = Way::Held;
    };
    let before = rows_of(&stand.predict());
    let (_, rows, wrong) = world(&mut stand, SPOILT, &before, None, lie);
    assert!(
        wrong.len() >= 3
            && wrong.iter().all(|line| line.contains("predicted: held") || line.contains("seen")),
        "{wrong:#?}"
    );
    let flush = "nft flush map inet egret binding4; nft flush map inet egret binding6";
    let (_, _, wrong) = world(&mut stand, SPOILT, &rows_of(&rows), Some(flush), |_| ());
    assert!(wrong.iter().any(|line| line.contains("the server named 172.30.0.")), "{wrong:#?}");
}
