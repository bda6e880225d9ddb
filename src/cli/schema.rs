//! `egret schema [KIND]`: the JSON schemas of the kinds that are read, and of the documents that `-o json` prints.
//!
//! In: a kind's name. Out: its schema; without a name, which there are. Never: reads objects.

use clap::Args;
use serde::Serialize;

use super::output::{PRINTED, Printed};
use super::table::Table;
use super::{API_VERSION, Common, Output, Refused, json};
use crate::api::{Schema, schemas};
use crate::problem::Problem;
use crate::spelling;

/// Arguments of `egret schema`.
#[derive(Debug, Args)]
#[command(after_help = "`docs/schema/` has the same, one file per kind.")]
pub struct SchemaArgs {
    /// The kind, with its group where two have one name: Pod, EgressGatewayPolicy.projectcalico.org
    /// [default: list them]
    pub kind: Option<String>,
}

/// Which schemas there are, as one JSON document.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaList {
    api_version: &'static str,
    kind: &'static str,
    /// One per kind.
    items: Vec<Item>,
    /// Always empty.
    problems: Vec<Problem>,
}

/// A kind.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Item {
    /// The argument that prints its schema.
    name: String,
    /// The kind.
    kind: String,
    /// What its `apiVersion` may be.
    api_versions: Vec<String>,
    /// The command that prints documents of this kind; absent for kinds that are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    printed_by: Option<&'static str>,
}

/// The text to print, and that all is well.
///
/// # Errors
/// A sentence, if there is no such kind.
pub fn run(common: &Common, args: &SchemaArgs) -> Result<(String, bool), Refused> {
    let read = schemas();
    let Some(kind) = &args.kind else { return Ok((list(common, &read)?, true)) };
    let wanted = kind.to_lowercase();
    let named = |schema: &&Schema| schema.name.to_lowercase() == wanted;
    // Of two kinds with one name ours stands first.
    let of_kind = |schema: &&Schema| schema.kind.as_str().to_lowercase() == wanted;
    if let Some(found) = read.iter().find(named).or_else(|| read.iter().find(of_kind)) {
        return Ok((found.to_string(), true));
    }
    if let Some(found) = PRINTED.iter().find(|printed| printed.kind.to_lowercase() == wanted) {
        return Ok((found.schema.to_owned(), true));
    }
    let read = read.iter().map(|schema| schema.kind.as_str());
    let names: Vec<&str> = read.chain(PRINTED.iter().map(|printed| printed.kind)).collect();
    let hint = spelling::hint(kind, &names);
    let hint = if hint.is_empty() { "; `egret schema` lists them".to_owned() } else { hint };
    Err(Refused::misused(format!("`{kind}` is no kind that Egret reads or prints{hint}")))
}

fn list(common: &Common, read: &[Schema]) -> Result<String, String> {
    if common.output == Output::Json {
        let of_read = |schema: &Schema| Item {
            name: schema.name.clone(),
            kind: schema.kind.to_string(),
            api_versions: schema.versions.clone(),
            printed_by: None,
        };
        let of_printed = |printed: &Printed| Item {
            name: printed.kind.to_owned(),
            kind: printed.kind.to_owned(),
            api_versions: vec![API_VERSION.to_owned()],
            printed_by: Some(printed.by),
        };
        let items = read.iter().map(of_read).chain(PRINTED.iter().map(of_printed)).collect();
        return json(&SchemaList {
            api_version: API_VERSION,
            kind: "SchemaList",
            items,
            problems: Vec::new(),
        });
    }
    let mut of_read = Table::new(&["KIND", "READ FROM"]);
    for schema in read {
        of_read.row([schema.name.clone(), schema.versions.join(", ")]);
    }
    let mut of_printed = Table::new(&["KIND", "PRINTED BY"]);
    for printed in PRINTED {
        of_printed.row([printed.kind.to_owned(), printed.by.to_owned()]);
    }
    Ok(format!("{of_read}\n{of_printed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: &str) -> Result<String, String> {
        let args = SchemaArgs { kind: Some(kind.to_owned()) };
        run(&Common::default(), &args).map(|(text, _)| text).map_err(|refused| refused.sentence)
    }

    #[test]
    fn of_two_kinds_with_one_name_ours_is_meant_unless_the_group_is_named() {
        let title = |kind: &str| answer(kind).unwrap().lines().nth(2).unwrap().trim().to_owned();
        let ours = "\"title\": \"EgressGatewayPolicy of egret.dev/v1alpha1\",";
        assert_eq!(
            (title("egressgatewaypolicy"), title("EgressGatewayPolicy.egret.dev")),
            (ours.into(), ours.into())
        );
        assert!(title("EgressGatewayPolicy.projectcalico.org").contains("projectcalico.org/v3 or crd."));
    }

    #[test]
    fn a_kind_that_is_not_read_is_said_with_the_likely_one() {
        assert_eq!(
            answer("EgressPol").unwrap_err(),
            "`EgressPol` is no kind that Egret reads or prints; did you mean `EgressPool`?"
        );
    }

    #[test]
    fn without_a_name_the_kinds_are_listed() {
        let all = schemas().len() + PRINTED.len();
        let (text, _) = run(&Common::default(), &SchemaArgs { kind: None }).unwrap();
        assert_eq!(text.lines().count(), all + 3, "two headings, and a blank line");
        let common = Common { output: Output::Json, ..Common::default() };
        let (json, _) = run(&common, &SchemaArgs { kind: None }).unwrap();
        let list: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), all);
    }

    #[test]
    fn documents_that_are_printed_have_schemas_too() {
        let schema: serde_json::Value = serde_json::from_str(&answer("nodestatus").unwrap()).unwrap();
        assert_eq!(schema["title"], "NodeStatus of egret.dev/v1alpha1");
    }
}
