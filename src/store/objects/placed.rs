//! Problems found by those who know no files: with the file, and with what is wrong where they point to.
//!
//! In: a problem of the resolver. Out: the same, placed. Never: finds anything wrong by itself.

use super::Objects;
use crate::api::Kind;
use crate::problem::Problem;

impl Objects {
    /// The problem with its object's file. Where it says that another object `cannot be used` or `cannot be read`, what is
    /// wrong with that one is added: who reads it in a pod's events should not have to look for it.
    #[must_use]
    pub fn placed(&self, mut problem: Problem) -> Problem {
        if problem.file.is_empty()
            && let Some((kind, name)) = problem.object.split_once(' ')
            && let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind)
            && let Some(file) = self.file(kind, name)
        {
            problem = problem.file(file);
        }
        if problem.message.contains(" cannot be ") {
            let names = |cause: &Problem| {
                let told = problem.message.contains(&cause.message);
                !told && problem.message.contains(&format!("{} cannot be ", cause.object))
            };
            let causes = self.problems().into_iter().filter(|cause| !cause.object.is_empty() && names(cause));
            let causes: Vec<String> = causes.map(|cause| cause.to_string()).collect();
            if !causes.is_empty() {
                problem.message = format!("{} ({})", problem.message, causes.join("; "));
            }
        }
        problem
    }
}
