//! `egret convert -f`: manifests of Calico's and Cilium's, as ours.
//!
//! In: files, anywhere. Out: YAML on standard output, notes on standard error; or all of it as one JSON document. 0 if everything could be
//! converted, 1 if something could not, 2 if there was nothing to read. Never: a state directory, a kernel, a privilege.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::manifests::{Manifests, Text};
use super::paint::Paint;
use super::{API_VERSION, Common, Output, Refused, json, workload};
use crate::api::convert::{Conversion, Converted, convert};
use crate::egress::explain::Shown;
use crate::problem::Problem;

/// Its arguments.
#[derive(Debug, Clone, Args)]
pub struct ConvertArgs {
    #[command(flatten)]
    manifests: Manifests,
}

/// What was converted, as one JSON document.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct ConvertReport {
    api_version: &'static str,
    kind: &'static str,
    /// Every document of the result.
    items: Vec<Item>,
    /// How many objects of kinds that have nothing to do with egress were passed over.
    skipped: BTreeMap<String, usize>,
    /// What has no equal, or is worth a second look.
    notes: Vec<Problem>,
    /// What could not be converted.
    problems: Vec<Problem>,
}

/// A document of the result.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Item {
    /// The file that it was in.
    file: String,
    /// What it was: `IPPool egress`.
    was: String,
    /// What it is: `EgressPool egress`.
    object: String,
    /// Whether it is another than it was.
    changed: bool,
    /// The document itself.
    manifest: Value,
}

/// Converts the manifests; `false` if one of them could not be.
///
/// # Errors
/// There is nothing to read.
pub fn run(common: &Common, args: &ConvertArgs) -> Result<(String, bool), Refused> {
    let texts = args.manifests.texts()?;
    let readable = texts.iter().filter(|text| text.unread.is_none());
    let mut conversion =
        convert(readable.map(|text| (text.name.as_str(), text.bytes.as_slice())), workload::template);
    conversion.problems.extend(texts.iter().filter_map(Text::problem));
    if conversion.is_empty() {
        let names: Vec<&str> = texts.iter().map(|text| text.name.as_str()).collect();
        return Err(Refused::misused(format!(
            "there is no manifest in {}: nothing was converted. Does the command before this one print any?",
            names.join(", ")
        )));
    }
    let well = conversion.problems.is_empty();
    if common.output == Output::Json {
        return Ok((json(&report(conversion))?, well));
    }
    // The answer may go into a file: what is to be read by a person goes elsewhere. Who has closed it does not want to know.
    let _ = std::io::stderr().write_all(remarks(&conversion, texts.len(), Paint::OFF).as_bytes());
    Ok((yaml(&conversion.documents)?, well))
}

fn report(conversion: Conversion) -> ConvertReport {
    let Conversion { documents, skipped, notes, problems, .. } = conversion;
    let item = |converted: Converted| {
        let Converted { file, was, object, changed, manifest } = converted;
        Item { file, was, object, changed, manifest }
    };
    let items = documents.into_iter().map(item).collect();
    ConvertReport { api_version: API_VERSION, kind: "ConvertReport", items, skipped, notes, problems }
}

/// One document after another.
fn yaml(documents: &[Converted]) -> Result<String, Refused> {
    let mut text = String::new();
    for document in documents {
        let manifest = serde_yaml_ng::to_string(&document.manifest);
        let manifest =
            manifest.map_err(|e| Refused::failed(format!("cannot write {}: {e}", document.object)))?;
        let _ = write!(text, "---\n{manifest}");
    }
    Ok(text)
}

/// Notes and problems as `lint` writes its findings, and a sentence that counts.
fn remarks(conversion: &Conversion, files: usize, paint: Paint) -> String {
    let mut text = String::new();
    for problem in &conversion.problems {
        let _ = writeln!(text, "{}: {}", paint.bad(&format!("error[{}]", problem.reason)), Shown(problem));
    }
    for note in &conversion.notes {
        let _ = writeln!(text, "{}: {}", paint.doubtful(&format!("note[{}]", note.reason)), Shown(note));
    }
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let changed = conversion.documents.iter().filter(|document| document.changed).count();
    let _ = writeln!(
        text,
        "{} in {}: {changed} converted, {} as they were; {}, {}",
        count(conversion.documents.len(), "object"),
        count(files, "file"),
        conversion.documents.len() - changed,
        count(conversion.problems.len(), "error"),
        count(conversion.notes.len(), "note"),
    );
    if !conversion.skipped.is_empty() {
        let kinds: Vec<String> = conversion.skipped.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let _ = writeln!(text, "passed over, as Egret does not read them: {}", kinds.join(", "));
    }
    text
}
