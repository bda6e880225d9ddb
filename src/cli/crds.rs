//! `egret crds`: the CustomResourceDefinitions that a cluster needs.
//!
//! In: which. Out: YAML for `kubectl apply -f -`. Never: speaks to a cluster.

use clap::Args;

use super::{Common, Output, Refused};
use crate::api::{Definition, definitions};
use crate::spelling;

/// Arguments of `egret crds`.
#[derive(Debug, Args)]
#[command(after_help = "egret crds | kubectl apply --server-side -f -\n\n\
                  `deploy/crds` and `deploy/foreign-crds` have the same, one file per kind.")]
pub struct CrdsArgs {
    /// A single one, by plural, with its group where two have one name: egresspools, egressgatewaypolicies.projectcalico.org
    /// [default: all of ours]
    pub name: Option<String>,
    /// Calico's and Cilium's instead, for clusters that never had them: where they are at work, theirs must stay
    #[arg(long, conflicts_with = "name")]
    pub foreign: bool,
}

/// The text to print, and that all is well.
///
/// # Errors
/// A sentence, if there is no such definition.
pub fn run(common: &Common, args: &CrdsArgs) -> Result<(String, bool), Refused> {
    let all = definitions();
    let chosen: Vec<&Definition> = match &args.name {
        None => all.iter().filter(|one| one.ours != args.foreign).collect(),
        Some(name) => vec![named(&all, name).map_err(Refused::misused)?],
    };
    if common.output == Output::Json {
        let items: Vec<_> = chosen.iter().map(|one| &one.object).collect();
        let text = super::json(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
        return Ok((text, true));
    }
    let documents: Vec<String> = chosen.iter().map(ToString::to_string).collect();
    Ok((documents.join("---\n"), true))
}

/// Of two with one plural, ours.
fn named<'a>(all: &'a [Definition], name: &str) -> Result<&'a Definition, String> {
    let wanted = name.to_lowercase();
    let plural = |one: &&Definition| one.name.split_once('.').is_some_and(|(plural, _)| plural == wanted);
    all.iter().find(|one| one.name == wanted).or_else(|| all.iter().find(plural)).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        let hint = spelling::hint(name, &names);
        let hint = if hint.is_empty() { format!("; there are {}", names.join(", ")) } else { hint };
        format!("`{name}` is no definition that Egret has{hint}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: Option<&str>, foreign: bool) -> Result<String, String> {
        let args = CrdsArgs { name: name.map(str::to_owned), foreign };
        run(&Common::default(), &args).map(|(text, _)| text).map_err(|refused| refused.sentence)
    }

    #[test]
    fn ours_are_printed_unless_others_are_asked_for() {
        let ours = answer(None, false).unwrap();
        assert_eq!(ours.matches("kind: CustomResourceDefinition").count(), 6);
        assert!(!ours.contains("projectcalico.org\n"), "{ours}");
        let foreign = answer(None, true).unwrap();
        assert_eq!(foreign.matches("kind: CustomResourceDefinition").count(), 3);
        let one = answer(Some("egressgatewaypolicies"), false).unwrap();
        assert!(one.contains("name: egressgatewaypolicies.egret.dev\n"), "{one}");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_likely_one() {
        let error = answer(Some("egresspool.egret.dev"), false).unwrap_err();
        assert_eq!(
            error,
            "`egresspool.egret.dev` is no definition that Egret has; did you mean `egresspools.egret.dev`?"
        );
    }
}
