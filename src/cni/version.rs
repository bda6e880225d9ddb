//! Versions of the CNI specification that Egret speaks.
//!
//! In: the `cniVersion` of a configuration. Out: a value that can be compared. Never: guesses (an unknown one is an error).

use std::fmt;

use super::reply::{CniError, Code};

/// A version of the specification. Chaining (`prevResult`) begins with 0.3.0; older ones are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK, and prevResult on DEL.
    V0_4_0,
    /// 1.0.0: no `version` in `ips`.
    V1_0_0,
    /// 1.1.0: GC and STATUS.
    V1_1_0,
}

impl Version {
    /// All of them, oldest first. CRI-O skips a list whose version one of its plugins does not name literally,
    /// so none may be left out.
    pub const ALL: [Version; 5] =
        [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];

    /// What is answered where the caller's version is not known (yet).
    pub const NEWEST: Version = Version::V1_1_0;

    /// As the specification writes it.
    pub fn text(self) -> &'static str {
        match self {
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// Reads a configuration's `cniVersion`; absent or empty means 0.1.0 (SPEC 1.1.0, "Version considerations"),
    /// which is too old. Errors: code 1, naming the version found and those that would do.
    pub fn read(text: Option<&str>) -> Result<Version, CniError> {
        let text = text.filter(|t| !t.is_empty()).unwrap_or("0.1.0");
        Version::ALL.into_iter().find(|v| v.text() == text).ok_or_else(|| {
            CniError::new(Code::IncompatibleVersion, "incompatible CNI versions")
                .details(format!("the configuration says `{text}`, Egret speaks {}", Version::list()))
        })
    }

    /// `0.3.0, 0.3.1, …`, for people.
    pub fn list() -> String {
        Version::ALL.map(Version::text).join(", ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
