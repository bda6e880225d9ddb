//! The arguments: consistent, helpful on a small screen, and wholly in manual pages and completions.

use clap_complete::Shell;

use super::*;

/// Every command that is not hidden, with its words: `egret ipam show`.
fn commands() -> Vec<(String, clap::Command)> {
    fn add(command: &clap::Command, words: &str, all: &mut Vec<(String, clap::Command)>) {
        all.push((words.to_owned(), command.clone()));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            add(below, &format!("{words} {}", below.get_name()), all);
        }
    }
    let mut root = command();
    root.build();
    let mut all = Vec::new();
    add(&root, "egret", &mut all);
    assert!(all.len() > 8, "the search is broken");
    all
}

/// `--output`, of a command's arguments that are not hidden.
fn flags(command: &clap::Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    shown.filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect()
}

#[test]
fn the_arguments_are_consistent() {
    command().debug_assert();
}

#[test]
fn the_help_of_every_command_fits_a_screen_of_80_by_24() {
    let mut wrong = Vec::new();
    let mut all = commands();
    let hidden = command().get_subcommands().filter(|one| one.is_hide_set()).cloned().collect::<Vec<_>>();
    let mut root = command();
    root.build();
    for name in hidden.iter().map(clap::Command::get_name) {
        all.push((format!("egret {name}"), root.find_subcommand(name).unwrap().clone()));
    }
    for (words, command) in all {
        let help = command.term_width(80).render_help().to_string();
        let (rows, columns) = (help.lines().count(), help.lines().map(|line| line.chars().count()).max());
        if rows > 24 || columns > Some(80) {
            wrong.push(format!("{words} -h takes {rows} rows and {columns:?} columns:\n{help}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Broken by hand, they would be broken a second time where the screen is narrower.
#[test]
fn paragraphs_of_the_long_help_are_left_for_the_screen_to_break() {
    for (words, command) in commands() {
        for text in [command.get_long_about(), command.get_after_long_help()].into_iter().flatten() {
            let text = text.to_string();
            let broken = text.split("\n\n").find(|paragraph| paragraph.contains('\n'));
            assert!(broken.is_none(), "{words} --help: {broken:?}");
        }
    }
}

#[test]
fn pages_are_written_nowhere_unasked() {
    assert!(command().try_get_matches_from(["egret", "man"]).unwrap_err().to_string().contains("<DIR>"));
}

#[test]
fn help_is_a_word_too() {
    let (said, _) = help(&["ipam".to_owned(), "show".to_owned()]).unwrap();
    assert!(said.contains("Usage: egret ipam show"), "{said}");
    assert!(help(&["nothing".to_owned()]).unwrap_err().misused);
}

#[test]
fn every_command_and_flag_has_its_manual_page() {
    let pages = man::pages().unwrap();
    let all = commands();
    assert_eq!(pages.len(), all.len());
    for (words, command) in all {
        let name = format!("{}.1", words.replace(' ', "-"));
        let page = pages.iter().find(|(file, _)| *file == name);
        let page =
            page.unwrap_or_else(|| panic!("no {name}: {:?}", pages.iter().map(|p| &p.0).collect::<Vec<_>>()));
        let page = String::from_utf8(page.1.clone()).unwrap().replace("\\-", "-").replace("\\*(Aq", "'");
        for flag in flags(&command) {
            assert!(page.contains(&flag), "{name} does not tell of {flag}");
        }
        assert!(
            page.contains(&command.get_about().unwrap().to_string()),
            "{name} says not what it does: {page}"
        );
    }
}

#[test]
fn every_command_and_flag_is_completed() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = String::from_utf8(completions(shell)).unwrap();
        for (words, command) in commands() {
            let word = words.split(' ').next_back().unwrap();
            assert!(script.contains(word), "{shell} does not complete {words}");
            for flag in flags(&command) {
                let flag = if shell == Shell::Fish { format!("-l {}", &flag[2..]) } else { flag };
                assert!(script.contains(&flag), "{shell} does not complete {flag} of {words}");
            }
        }
    }
}
