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
        let names: Vec<&str> = all.iter().map(|schema| schema.name.as_str()).collect();
        let hint = spelling::hint(kind, &names);
        format!("`{kind}` is no kind that Egret reads{hint}; `egret schema` lists them")
    })?;
    Ok((text(found), true))
}

/// A schema as it is printed and kept in `docs/schema/`.
pub fn text(schema: &Schema) -> String {
    format!("{:#}\n", schema.schema)
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
