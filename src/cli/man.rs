//! `egret man DIR`: manual pages, for packagers.
//!
//! In: the program's own arguments. Out: one page per command, as `man` reads them. Never: a text of its own; what a page says is what
//! `--help` says.

use std::path::PathBuf;

use clap::Args;
use clap_mangen::Man;

use super::Refused;

/// Arguments of `egret man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where the pages are written; it must exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes the pages and names them.
///
/// # Errors
/// The folder is not there, or a page cannot be written.
pub fn run(args: &ManArgs) -> Result<(String, bool), Refused> {
    if !args.dir.is_dir() {
        return Err(Refused::misused(format!("{} is no folder: name one that is there", args.dir.display())));
    }
    let mut named = String::new();
    for (name, page) in pages()? {
        let path = args.dir.join(name);
        std::fs::write(&path, page)
            .map_err(|e| format!("cannot write {}: {e}; is there room, and may you?", path.display()))?;
        named += &format!("{}\n", path.display());
    }
    Ok((named, true))
}

/// Every page with its file's name: `egret.1`, `egret-ipam-show.1`.
pub(super) fn pages() -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut all = super::command();
    all.build();
    let mut pages = Vec::new();
    add(&all, &mut pages).map_err(|e| format!("a manual page cannot be made: {e}"))?;
    Ok(pages)
}

fn add(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    // Built, a command is named by its whole path: `egret-ipam-show`.
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = Vec::new();
    let source = concat!("egret ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).source(source).manual("Egret").render(&mut page)?;
    pages.push((format!("{name}.1"), page));
    let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    shown.into_iter().try_for_each(|below| add(below, pages))
}
