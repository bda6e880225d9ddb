//! The demonstration: what `egret explain` predicts and what the outside saw, side by side. `scripts/demo` builds and starts this.
//!
//! In: an egret binary. Out: a table, the table again after a gateway is gone, the books after all pods are gone; exit 1 if any
//! prediction differs from what the outside saw. The world is this process's own, and the kernel takes it back however it ends.
#![allow(clippy::print_stdout, reason = "a program for people says things")]

mod compare;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use egret::testbed::{Pod, Topology, World};

/// Three nodes, three gateways, clients and others: predictions and what the outside saw.
#[derive(Debug, Parser)]
#[command(name = "demo", bin_name = "scripts/demo", max_term_width = 100)]
struct Line {
    /// The binary to chain; its file must be called `egret`
    #[arg(long, value_name = "FILE")]
    egret: PathBuf,
}

/// What stopped it, as a sentence.
type Stopped = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match demonstrate(Line::parse().egret) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(differences) => {
            eprintln!("scripts/demo: {differences} of the predictions above did not come true");
            ExitCode::FAILURE
        }
        Err(stopped) => {
            eprintln!("scripts/demo: {stopped}");
            ExitCode::FAILURE
        }
    }
}

/// Tells the story; gives the number of rows that differ.
fn demonstrate(egret: PathBuf) -> Result<usize, Stopped> {
    let egret = egret.canonicalize().map_err(|e| format!("no egret binary at {}: {e}", egret.display()))?;
    let start = Instant::now();
    let world = World::raise(Topology { egret: Some(egret), ..Topology::default() })?;
    let mut pods = story::furnish(&world)?;
    println!(
        "3 nodes and {} pods wired by cnitool (bridge, then egret) in {:.1} s\n",
        pods.len(),
        start.elapsed().as_secs_f32()
    );
    println!("{}", compare::leases(&world)?);
    let mut differences = draw(&world, &pods)?;

    let gone = story::take(&mut pods, story::GOES)?;
    world.del_pod(&gone)?;
    println!("\ncnitool del {}, which ran on node{}. The same pods again:\n", gone.name, gone.node);
    differences += draw(&world, &pods)?;

    for pod in &pods {
        world.del_pod(pod)?;
    }
    println!("\nAll pods are deleted. egret ipam show:\n");
    print!("{}", compare::command(&world, &["ipam", "show"])?);
    let left = compare::addresses_in_use(&world)?;
    if left > 0 {
        println!("{left} addresses are still in use");
    }
    println!("\n{:.1} s in all", start.elapsed().as_secs_f32());
    Ok(differences + left)
}

fn draw(world: &World, pods: &[Pod]) -> Result<usize, Stopped> {
    let table = compare::table(world, pods)?;
    print!("{}", table.text);
    Ok(table.differences)
}
