//! Completion for `kubectl egret …`: kubectl asks a program `kubectl_complete-egret` what may come next.
//!
//! In: the words so far, the last of them begun or empty. Out: a line per word that may stand there, with what it means, and how
//! kubectl shall go on (`:0`: with files, `:4`: without), as Cobra's `__complete` answers. Pure but for [`asked`].

use std::path::Path;

use clap::{Arg, Command, ValueHint};

/// What kubectl calls the program that completes a plugin's words.
const COMPLETER: &str = "kubectl_complete-egret";

/// The words so far, if we were called to complete them.
pub fn asked() -> Option<Vec<String>> {
    let mut words = std::env::args_os();
    let called = words.next()?;
    let meant = Path::new(&called).file_name().is_some_and(|name| name == COMPLETER);
    meant.then(|| words.map(|word| word.to_string_lossy().into_owned()).collect())
}

/// What may stand where the last word does.
pub fn answer(root: &Command, words: &[String]) -> String {
    let mut root = root.clone();
    root.build();
    let (begun, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let mut command = &root;
    let mut open: Option<&Arg> = None;
    for word in before {
        open = if open.is_some() {
            None
        } else {
            flag(command, word).filter(|arg| arg.get_action().takes_values())
        };
        if open.is_none()
            && let Some(below) = command.find_subcommand(word)
        {
            command = below;
        }
    }
    if let Some(arg) = open {
        let values = arg.get_possible_values();
        let names = values.iter().map(|value| (value.get_name().to_owned(), String::new()));
        // Whatever is a path says so by the name of its value.
        let path = values.is_empty()
            && (arg.get_value_hint() != ValueHint::Unknown
                || arg
                    .get_value_names()
                    .is_some_and(|names| names.iter().any(|n| n == "FILE" || n == "DIR")));
        return lines(names, begun, if path { 0 } else { 4 });
    }
    if begun.starts_with('-') {
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let named = shown.filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help()))));
        return lines(named, begun, 4);
    }
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    lines(below.map(|below| (below.get_name().to_owned(), about(below.get_about()))), begun, 4)
}

fn flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let long = word.strip_prefix("--");
    let short = word.strip_prefix('-').and_then(|rest| rest.chars().next().filter(|_| rest.len() == 1));
    command.get_arguments().find(|arg| {
        (long.is_some() && arg.get_long() == long) || (short.is_some() && arg.get_short() == short)
    })
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

fn lines(all: impl Iterator<Item = (String, String)>, begun: &str, then: u8) -> String {
    let mut text = String::new();
    for (word, about) in all.filter(|(word, _)| word.starts_with(begun)) {
        text += &if about.is_empty() { format!("{word}\n") } else { format!("{word}\t{about}\n") };
    }
    text + &format!(":{then}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &str) -> String {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        answer(&crate::cli::command(), &words)
    }

    #[test]
    fn commands_their_commands_flags_and_values_are_completed() {
        assert!(said("").contains("explain\tSay where a pod's traffic leaves"), "{}", said(""));
        assert!(!said("").contains("completions"), "what is hidden is not offered");
        assert!(said("ex").starts_with("explain\t") && said("ex").lines().count() == 2, "{}", said("ex"));
        assert!(said("ipam ").contains("release\t"));
        assert!(said("ipam show --o").starts_with("--output\t"), "{}", said("ipam show --o"));
        assert!(said("list --kubeconfig ").ends_with(":0\n"), "a file");
        assert_eq!(said("list -o "), "text\njson\n:4\n");
        assert_eq!(said("list -n "), ":4\n");
    }
}
