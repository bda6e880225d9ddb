//! The matrix: each fault with all belts, with each covering belt alone, and with none of them; and each belt's read-back.

use std::collections::BTreeSet;
use std::time::Duration;

use egret::egress::belts::Belts;
use egret::testbed::Capture;

use crate::faults::{EXIT_FAULTS, FAULTS, Fault, HARMLESS};
use crate::lab::Lab;
use crate::traffic::Sender;

/// Belts of a lab whose gateway is a pod, by their names in a weakened build; `hold` is an order and not a state, so the kernel cannot tell that it is missing.
const READABLE: [&str; 13] = [
    "unreachable-routes",
    "last-rule",
    "forward",
    "from-us",
    "source",
    "invalid",
    "spoof",
    "guard",
    "gateway-routes",
    "gateway-forward",
    "gateway-invalid",
    "gateway-input",
    "gateway-replies",
];

/// Names of all belts, as the program's own type has them.
fn all_belts() -> BTreeSet<String> {
    let fields = format!("{:?}", Belts::ALL);
    fields
        .split([' ', '{', ','])
        .filter_map(|word| word.strip_suffix(':'))
        .map(|f| f.replace('_', "-"))
        .collect()
}

/// Belts in the last column but one, or the last, of each row of this heading's tables.
fn belts_of_rows(page: &str, heading: &str, column: usize) -> Vec<Vec<String>> {
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault |"));
    let belts = |row: &str| {
        let cell = row.split('|').nth(column).unwrap_or_default();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    rows.map(belts).collect()
}

#[test]
fn every_belt_has_its_fault_its_read_back_and_its_line_on_the_page() {
    let all = all_belts();
    assert!(all.len() > 10 && all.contains("unreachable-routes"), "{all:?}");
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let covering: Vec<&str> = FAULTS.iter().chain(EXIT_FAULTS).flat_map(|f| f.covered_by).copied().collect();
    assert_eq!(names(&covering), all, "each covers a fault");
    assert_eq!(names(&[&READABLE[..], &["exit-source", "hold"]].concat()), all, "each is read back");

    let page = include_str!("../../docs/belts.md");
    let (list, _) = page.split_once("\n## ").unwrap();
    let first = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let listed: BTreeSet<String> = list.lines().filter_map(first).collect();
    assert_eq!(listed, all, "docs/belts.md lists the belts");
    let line = |fault: &Fault| -> Vec<String> { fault.covered_by.iter().map(|b| (*b).to_owned()).collect() };
    let tried: Vec<_> = FAULTS.iter().chain(EXIT_FAULTS).map(line).collect();
    assert_eq!(belts_of_rows(page, "Fault × belts", 3), tried, "docs/belts.md: fault × belts");
    let harmless: Vec<_> = HARMLESS.iter().map(line).collect();
    assert_eq!(belts_of_rows(page, "Faults that leak nothing", 2), harmless, "docs/belts.md: without belts");
}

/// Leaves out these belts, lets the fault strike, and counts what leaked. Everything is whole again afterwards.
#[allow(clippy::print_stdout, reason = "what leaked, for who reads a failure")]
fn leaks(lab: &Lab, capture: &Capture, fault: &Fault, without: &[&str]) -> usize {
    lab.without(without);
    lab.forget_all();
    let mut senders: Vec<Sender> = lab.clients.iter().map(Sender::open).collect();
    capture.restart();
    lab.strays();
    for sender in &mut senders {
        sender.lively_round();
    }
    let harm = (fault.strike)(lab, &mut senders, capture);
    std::thread::sleep(Duration::from_millis(30));
    let strays = lab.strays();
    let leaked = lab.leaked(capture);
    let leaked =
        leaked.unwrap_or_else(|| panic!("{}, without {without:?}: a client was not heard", fault.name));
    leaked.iter().take(8).for_each(|packet| println!("{packet}"));
    drop(senders);
    lab.settle().unwrap();
    lab.forget_all();
    leaked.len() + harm + strays
}

#[test]
fn each_fault_leaks_without_the_belts_that_cover_it_and_each_of_them_alone_covers_it() {
    show(&Lab::weakened(), FAULTS);
}

#[test]
fn each_fault_of_a_node_gateway_leaks_without_the_belts_that_cover_it_and_each_of_them_alone_covers_it() {
    show(&Lab::weakened_by_node(), EXIT_FAULTS);
}

#[allow(clippy::print_stdout, reason = "what was measured")]
fn show(lab: &Lab, faults: &[Fault]) {
    let capture = lab.capture().unwrap();
    let mut wrong = Vec::new();
    // `EGRET_FAULT_NAMED=unbound`: the lines whose name holds that, for who works on one.
    let named = std::env::var("EGRET_FAULT_NAMED").unwrap_or_default();
    for fault in faults.iter().filter(|fault| fault.name.contains(&named)) {
        let mut expect = |without: &[&str], leak: bool| {
            // A gap that is met in most cases is not met in each, on a busy machine.
            let tries = if leak { 5 } else { 1 };
            let leaked = (0..tries).map(|_| leaks(lab, &capture, fault, without)).find(|leaked| *leaked > 0);
            let leaked = leaked.unwrap_or_default();
            println!("{}, without {without:?}: {leaked}", fault.name);
            if (leaked > 0) != leak {
                wrong.push(format!("{}, without {without:?}: {leaked} packets leaked", fault.name));
            }
        };
        expect(&[], false);
        expect(fault.covered_by, true);
        for belt in fault.covered_by {
            let others: Vec<&str> = fault.covered_by.iter().copied().filter(|b| b != belt).collect();
            if !others.is_empty() {
                expect(&others, false);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Evidence, not an aim: where one of these begins to leak, its belts have found their fault, and the line moves up.
#[test]
fn these_faults_leak_nothing_without_the_belts_that_one_would_expect() {
    let lab = Lab::weakened();
    let capture = lab.capture().unwrap();
    for fault in HARMLESS {
        let leaked = leaks(&lab, &capture, fault, fault.covered_by);
        assert_eq!(leaked, 0, "{}, without {:?}", fault.name, fault.covered_by);
    }
}

#[test]
fn a_build_without_a_belt_does_not_read_back_as_the_plan() {
    read_back(&Lab::weakened(), &READABLE);
    read_back(&Lab::weakened_by_node(), &["exit-source"]);
}

#[allow(clippy::print_stdout, reason = "what was measured")]
fn read_back(lab: &Lab, belts: &[&str]) {
    let missing = || [1, 2].map(|node| lab.missing(node)).concat();
    assert_eq!(missing(), [""; 0], "a weakened build with all belts is the product");
    for belt in belts {
        lab.without(&[*belt]);
        let steps = missing();
        println!("without {belt}: {} steps", steps.len());
        assert!(!steps.is_empty(), "a build without {belt} reads back as the plan");
        lab.without(&[]);
        assert_eq!(missing(), [""; 0], "after {belt} came back");
    }
}
