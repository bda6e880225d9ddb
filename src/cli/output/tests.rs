//! `docs/schema/output/` is what the types say.

use std::borrow::Cow;
use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::PRINTED;
use crate::agent::state::AgentState;
use crate::cli::API_VERSION;
use crate::cli::convert::ConvertReport;
use crate::cli::install::InstallReport;
use crate::cli::ipam::{IpamRelease, IpamReport};
use crate::cli::lint::LintReport;
use crate::cli::list::ListReport;
use crate::cli::node::ReconcileReport;
use crate::cli::schema::SchemaList;
use crate::cli::status::StatusReport;
use crate::cli::status::cluster::ClusterStatus;
use crate::egress::explain::Explanation;

/// Types that are printed as one text.
macro_rules! text {
    ($($type:ty, $name:literal, $about:literal;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "description": $about})
            }
        }
    )*};
}

text! {
    crate::addr::Cidr, "Cidr", "A prefix: 10.10.10.0/31, 2001:db8::/64.";
    crate::egress::model::PodName, "PodName", "NAMESPACE/NAME.";
    crate::ipam::Owner, "Owner",
        "Whom a lease is for: pod:UID, ordinal:NAMESPACE/STATEFULSET/N, slot:NAMESPACE/GATEWAY/N or container:NODE/NETWORK/CONTAINERID/IFNAME.";
    crate::kernel::Step, "Step", "A change of the kernel, written as `ip`, `bridge` or `nft` would take it. For people: not to be parsed.";
}

/// The schema of what is printed, not of what would be read.
fn of<T: JsonSchema>(kind: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    schema["title"] = format!("{kind} of {API_VERSION}").into();
    for (field, value) in [("apiVersion", API_VERSION), ("kind", kind)] {
        assert!(schema["properties"][field].is_object(), "{kind} has no {field}");
        schema["properties"][field] = json!({"const": value});
    }
    for field in ["apiVersion", "kind", "problems"] {
        let required = schema["required"].as_array().unwrap();
        assert!(required.contains(&field.into()), "{kind} may be without {field}");
    }
    tidy(&mut schema);
    schema["properties"]["problems"]["description"] = "What is wrong: it never stops the rest.".into();
    undescribed(&schema, kind);
    schema
}

/// Takes away what is true of Rust alone: the width of numbers, and what an absent field would be read as.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| match (name.as_str(), value) {
                ("format", Value::String(format)) => !format.contains("int"),
                ("default", _) => false,
                _ => true,
            });
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Every field says what it is.
fn undescribed(schema: &Value, kind: &str) {
    let defined = schema["$defs"].as_object().into_iter().flatten();
    let all = defined.map(|(name, schema)| (name.as_str(), schema)).chain([(kind, schema)]);
    for (name, schema) in all {
        for (field, shape) in schema["properties"].as_object().into_iter().flatten() {
            let said = shape["description"].is_string() || shape["const"].is_string();
            assert!(said, "{kind}: {name}.{field} has no doc comment");
        }
    }
}

#[test]
fn the_schemas_of_what_is_printed_are_current() {
    let expected = [
        of::<AgentState>("AgentState"),
        of::<ClusterStatus>("ClusterStatus"),
        of::<ConvertReport>("ConvertReport"),
        of::<Explanation>("Explanation"),
        of::<InstallReport>("InstallReport"),
        of::<IpamRelease>("IpamRelease"),
        of::<IpamReport>("IpamReport"),
        of::<LintReport>("LintReport"),
        of::<ListReport>("List"),
        of::<StatusReport>("NodeStatus"),
        of::<ReconcileReport<'static>>("ReconcileReport"),
        of::<SchemaList>("SchemaList"),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema/output");
    assert_eq!(expected.len(), PRINTED.len());
    for (schema, printed) in expected.iter().zip(PRINTED) {
        assert_eq!(schema["properties"]["kind"]["const"], printed.kind, "one order in both lists");
        let path = folder.join(format!("{}.json", printed.kind));
        let text = format!("{schema:#}\n");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(kept, text, "{} is not current: run this test with UPDATE=1", path.display());
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), PRINTED.len(), "a schema of nothing");
}

/// `egret ipam show` and its like: every command that answers.
fn commands(of: &clap::Command, path: &str) -> Vec<String> {
    let mut leaves = Vec::new();
    for command in of.get_subcommands() {
        let path = format!("{path} {}", command.get_name());
        let below = commands(command, &path);
        leaves.extend(if below.is_empty() { vec![path] } else { below });
    }
    leaves
}

#[test]
fn every_command_that_answers_has_its_documents_described() {
    // What `crds` prints is Kubernetes' own kind; the controller speaks to the log.
    let silent = ["egret completions", "egret controller", "egret crds", "egret help", "egret man"];
    let listed: Vec<&str> = PRINTED.iter().flat_map(|printed| printed.by.split(", ")).collect();
    let all = commands(&crate::cli::command(), "egret");
    let missing: Vec<&String> = all
        .iter()
        .filter(|path| !silent.contains(&path.as_str()) && !listed.contains(&path.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in src/cli/output.rs: {missing:?}");
    let unknown: Vec<&&str> =
        listed.iter().filter(|by| by.starts_with("egret ") && !all.contains(&(**by).to_owned())).collect();
    assert!(unknown.is_empty(), "no such command: {unknown:?}");
}
