//! `egret schema [KIND]`: the JSON schemas of the kinds that are read.
//!
//! In: a kind's name. Out: its schema; without a name, which there are. Never: reads objects.

use clap::Args;

use super::table::Table;
use super::{Common, Output};
use crate::api::{Schema, schemas};
use crate::spelling;

/// Arguments of `egret schema`.
#[derive(Debug, Args)]
#[command(after_help = "`docs/schema/` has the same, one file per kind.")]
pub struct SchemaArgs {
    /// The kind, with its group where two have one name: Pod, EgressGatewayPolicy.projectcalico.org
    /// [default: list them]
    pub kind: Option<String>,
}

/// The text to print, and that all is well.
///
/// # Errors
/// A sentence, if there is no such kind.
pub fn run(common: &Common, args: &SchemaArgs) -> Result<(String, bool), String> {
    let all = schemas();
    let Some(kind) = &args.kind else { return Ok((list(common, &all), true)) };
    let wanted = kind.to_lowercase();
    let named = |schema: &&Schema| schema.name.to_lowercase() == wanted;
    // Of two kinds with one name ours stands first.
    let of_kind = |schema: &&Schema| schema.kind.as_str().to_lowercase() == wanted;
    let found = all.iter().find(named).or_else(|| all.iter().find(of_kind));
    let found = found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|schema| schema.kind.as_str()).collect();
        let hint = spelling::hint(kind, &names);
        let hint = if hint.is_empty() { "; `egret schema` lists them".to_owned() } else { hint };
        format!("`{kind}` is no kind that Egret reads{hint}")
    })?;
    Ok((found.to_string(), true))
}

fn list(common: &Common, all: &[Schema]) -> String {
    if common.output == Output::Json {
        let rows: Vec<_> = all
            .iter()
            .map(|s| serde_json::json!({"name": s.name, "kind": s.kind.as_str(), "apiVersions": s.versions}))
            .collect();
        return format!("{:#}\n", serde_json::Value::from(rows));
    }
    let mut table = Table::new(&["KIND", "READ FROM"]);
    for schema in all {
        table.row([schema.name.clone(), schema.versions.join(", ")]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: &str) -> Result<String, String> {
        run(&Common::default(), &SchemaArgs { kind: Some(kind.to_owned()) }).map(|(text, _)| text)
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
            "`EgressPol` is no kind that Egret reads; did you mean `EgressPool`?"
        );
    }

    #[test]
    fn without_a_name_the_kinds_are_listed() {
        let (text, _) = run(&Common::default(), &SchemaArgs { kind: None }).unwrap();
        assert_eq!(text.lines().count(), 1 + schemas().len());
        let common = Common { output: Output::Json, ..Common::default() };
        let (json, _) = run(&common, &SchemaArgs { kind: None }).unwrap();
        let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(rows.len(), schemas().len());
    }
}
