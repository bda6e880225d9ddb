//! `egret lint -f`: what is wrong with manifests, before anybody applies them.
//!
//! In: files, anywhere. Out: findings as lines or JSON; 0 if there is no error, 1 if there is one, 2 if there was nothing to read.
//! Never: a state directory, a kernel, a privilege. It reads by the same readers and decides by the same resolver as a node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::cluster::{Cluster, readings};
use super::manifests::{self, Manifests};
use super::paint::Paint;
use super::{API_VERSION, Common, Output, Refused, json, workload};
use crate::api::{Object, Reading};
use crate::config::Config;
use crate::egress::explain::Shown;
use crate::egress::lint::{Finding, Severity, lint};
use crate::problem::Problem;
use crate::store::objects::Objects;

/// Its arguments.
#[derive(Debug, Clone, Args)]
pub struct LintArgs {
    /// A file, a directory (its .yaml, .yml and .json files, at any depth), or - for standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    filenames: Vec<PathBuf>,
    /// Warnings count as errors
    #[arg(long)]
    strict: bool,
}

/// What was found, as one JSON document.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct LintReport {
    api_version: &'static str,
    kind: &'static str,
    /// Every object that was read.
    items: Vec<Item>,
    /// How many objects of kinds that have nothing to do with egress were passed over.
    skipped: BTreeMap<String, usize>,
    /// Errors and warnings, by file.
    problems: Vec<Finding>,
}

/// An object that was read.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Item {
    /// `Pod shop/cart`.
    object: String,
    /// Its file.
    file: String,
    /// Whether it is as it should be.
    verdict: Verdict,
}

/// The worst that was found of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Error,
}

/// Looks at the manifests; `false` if there is an error.
///
/// # Errors
/// There is nothing to read.
pub fn run(common: &Common, args: &LintArgs) -> Result<(String, bool), Refused> {
    let texts = match args.filenames.as_slice() {
        // Which clap cannot say: whether a cluster is meant depends on the name that we were called by, too.
        [] if !common.names_cluster() => {
            return Err(Refused::misused(
                "there is nothing to read: name manifests with -f, or a cluster with --kubeconfig",
            ));
        }
        [] => Vec::new(),
        some => Manifests { filenames: some.to_vec() }.texts()?,
    };
    let around = if common.names_cluster() { common.cluster()? } else { None };
    // Not what a plugin was last called with on this machine: the answer must be the same on every machine.
    let config = match (&common.config, &around) {
        (Some(file), _) => Config::from_file(file).map_err(|e| Refused::misused(e.to_string()))?,
        (None, Some(cluster)) => cluster.config.clone(),
        (None, None) => Config::default(),
    };
    let mut whole = manifests::read(&texts);
    let mut report = match around {
        None => report(&config, whole)?,
        Some(cluster) => {
            let asked: BTreeSet<String> = texts.iter().map(|text| text.name.clone()).collect();
            beside(&mut whole, readings(&cluster.looked, &config));
            let report = report(&config, whole)?;
            if asked.is_empty() { report } else { report.of(&asked, &as_it_is(&config, &cluster)?) }
        }
    };
    report.problems.sort_by_key(|finding| (finding.problem.file.clone(), finding.severity));
    let count = |severity| report.problems.iter().filter(|finding| finding.severity == severity).count();
    let well = count(Severity::Error) == 0 && (!args.strict || report.problems.is_empty());
    let text = match common.output {
        Output::Json => json(&report)?,
        Output::Text => report.text(texts.len(), Paint::of_stdout()),
    };
    Ok((text, well))
}

/// Puts manifests into a cluster: what it has already stands beside them, but for what they would replace.
fn beside(whole: &mut manifests::Whole, known: Vec<(String, Reading)>) {
    let written = whole.readings.iter().flat_map(|(_, reading)| &reading.objects);
    let replaced: BTreeSet<String> =
        written.map(|written| workload::shown(written.kind, &written.name)).collect();
    for (name, mut reading) in known {
        reading.objects.retain(|written| !replaced.contains(&workload::shown(written.kind, &written.name)));
        if !reading.objects.is_empty() || !reading.problems.iter().any(|p| replaced.contains(&p.object)) {
            whole.readings.push((name, reading));
        }
    }
}

/// What is wrong in the cluster already.
fn as_it_is(config: &Config, cluster: &Cluster) -> Result<Vec<Finding>, Refused> {
    let readings = readings(&cluster.looked, config);
    Ok(report(config, manifests::Whole { readings, skipped: BTreeMap::new() })?.problems)
}

fn report(config: &Config, whole: manifests::Whole) -> Result<LintReport, Refused> {
    let mut problems: Vec<Finding> = Vec::new();
    for (_, reading) in &whole.readings {
        problems.extend(reading.problems.iter().map(|problem| graded(reading, problem)));
    }
    let known = problems.len();
    let written: Vec<(String, String)> = (whole.readings.iter())
        .flat_map(|(file, reading)| reading.objects.iter().map(move |object| (file, object)))
        .map(|(file, object)| (workload::shown(object.kind, &object.name), file.clone()))
        .collect();
    let objects = Objects::of(whole.readings).map_err(|e| Refused::failed(e.to_string()))?;
    let view = objects.view(config, Vec::new());
    // Those of files are known; what follows is between them: doubles, pools that overlap.
    let between =
        objects.problems().into_iter().filter(|p| !problems[..known].iter().any(|f| f.problem == *p));
    let between: Vec<Finding> =
        between.map(|problem| Finding { severity: Severity::Error, problem }).collect();
    problems.extend(between);
    let placed =
        lint(&view).into_iter().map(|found| Finding { problem: objects.placed(found.problem), ..found });
    problems.extend(placed);
    for finding in &mut problems {
        finding.problem = workload::renamed(finding.problem.clone());
    }
    let place = |f: &Finding| (f.problem.file.clone(), f.severity);
    problems.sort_by_key(place);
    let mut seen = BTreeSet::new();
    problems.retain(|finding| seen.insert(finding.clone()));
    let mut verdicts: HashMap<&str, Severity> = HashMap::new();
    for Finding { severity, problem } in &problems {
        let worst = verdicts.entry(&problem.object).or_insert(*severity);
        *worst = (*worst).min(*severity);
    }
    let item =
        |(object, file): (String, String)| Item { verdict: verdicts.get(&*object).into(), object, file };
    let items = written.into_iter().map(item).collect();
    Ok(LintReport { api_version: API_VERSION, kind: "LintReport", items, skipped: whole.skipped, problems })
}

impl From<Option<&Severity>> for Verdict {
    fn from(worst: Option<&Severity>) -> Verdict {
        match worst {
            Some(Severity::Error) => Verdict::Error,
            Some(Severity::Warning) => Verdict::Warning,
            None => Verdict::Ok,
        }
    }
}

/// Reasons that never make an object unusable by themselves, should it be so by another.
const HARMLESS: [&str; 3] = ["UnknownField", "IgnoredField", "Configuration"];

/// What an object survives is a warning; an object that could not be understood, or not be obeyed, has errors.
fn graded(reading: &Reading, problem: &Problem) -> Finding {
    let mut named = reading
        .objects
        .iter()
        .filter(|written| workload::shown(written.kind, &written.name) == problem.object);
    let survives = named.next().is_some_and(|written| match &written.object {
        None => false,
        Some(Object::Policy(policy)) => policy.unfit.is_empty(),
        Some(_) => true,
    });
    let harmless = survives || HARMLESS.contains(&problem.reason.as_str());
    let severity = if harmless { Severity::Warning } else { Severity::Error };
    Finding { severity, problem: problem.clone() }
}

impl LintReport {
    /// What concerns these files, and what they would break elsewhere: a pool may take the addresses of one that gateways have. What
    /// was wrong before without them is none of theirs.
    fn of(mut self, files: &BTreeSet<String>, before: &[Finding]) -> LintReport {
        self.items.retain(|item| files.contains(&item.file));
        self.problems.retain(|finding| files.contains(&finding.problem.file) || !before.contains(finding));
        self
    }

    /// One finding after another, as compilers write them, and a sentence that counts.
    fn text(&self, files: usize, paint: Paint) -> String {
        let mut text = String::new();
        for finding in &self.problems {
            let Finding { severity, problem } = finding;
            let severity = match severity {
                Severity::Error => paint.bad(&format!("error[{}]", problem.reason)),
                Severity::Warning => paint.doubtful(&format!("warning[{}]", problem.reason)),
            };
            let _ = writeln!(text, "{severity}: {}", Shown(problem));
        }
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let of = |severity| self.problems.iter().filter(|f| f.severity == severity).count();
        let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
        let verdict = match (errors, warnings) {
            (0, 0) => paint.good("nothing wrong"),
            (0, _) => count(warnings, "warning"),
            (_, 0) => count(errors, "error"),
            _ => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
        };
        let place = if files == 0 { "the cluster".to_owned() } else { count(files, "file") };
        let read = format!("{} in {place}", count(self.items.len(), "object"));
        let _ = writeln!(text, "{read}: {verdict}");
        if !self.skipped.is_empty() {
            let kinds: Vec<String> = self.skipped.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
            let _ = writeln!(text, "passed over, as Egret does not read them: {}", kinds.join(", "));
        }
        text
    }
}
