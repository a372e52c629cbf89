//! The report, for people and as JSON.

use std::fmt;

use homeport_meta::unknown_methods::UnknownMethod;
use serde::Serialize;

/// How a requirement is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// It works without, but something is lost.
    Warn,
    /// It doesn't work without.
    Missing,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// Short name that doesn't change.
    pub(super) name: &'static str,
    pub(super) status: Status,
    /// What was seen.
    pub(super) found: String,
    /// What doesn't work because of it.
    pub(super) lost: Option<String>,
    /// The command or action that mends it.
    pub(super) mend: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, status: Status::Ok, found: found.into(), lost: None, mend: None }
    }

    pub(super) fn warn(name: &'static str, found: impl Into<String>, lost: &str, mend: &str) -> Check {
        Check::lacking(name, Status::Warn, found.into(), lost, mend)
    }

    pub(super) fn missing(name: &'static str, found: impl Into<String>, lost: &str, mend: &str) -> Check {
        Check::lacking(name, Status::Missing, found.into(), lost, mend)
    }

    fn lacking(name: &'static str, status: Status, found: String, lost: &str, mend: &str) -> Check {
        Check { name, status, found, lost: Some(lost.to_owned()), mend: Some(mend.to_owned()) }
    }
}

/// All that was found.
pub(super) struct Report {
    pub(super) checks: Vec<Check>,
    pub(super) unknown_methods: Vec<UnknownMethod>,
}

#[derive(Serialize)]
pub(super) struct JsonReport<'a> {
    ok: bool,
    checks: &'a [Check],
    unknown_methods: Vec<JsonMethod<'a>>,
}

#[derive(Serialize)]
struct JsonMethod<'a> {
    client_version: &'a str,
    method: &'a str,
}

impl Report {
    pub(super) fn needed_is_there(&self) -> bool {
        self.checks.iter().all(|check| check.status != Status::Missing)
    }

    pub(super) fn as_json(&self) -> JsonReport<'_> {
        JsonReport {
            ok: self.needed_is_there(),
            checks: &self.checks,
            unknown_methods: self
                .unknown_methods
                .iter()
                .map(|unknown| JsonMethod {
                    client_version: &unknown.client_version,
                    method: &unknown.method,
                })
                .collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok",
                Status::Warn => "warn",
                Status::Missing => "missing",
            };
            writeln!(out, "{status:<8} {:<20} {}", check.name, check.found)?;
            for (label, text) in [("lost", &check.lost), ("mend", &check.mend)] {
                if let Some(text) = text {
                    writeln!(out, "         {label}: {text}")?;
                }
            }
        }
        if !self.unknown_methods.is_empty() {
            writeln!(out, "\nMethods that clients asked for and this server doesn't have:")?;
            for unknown in &self.unknown_methods {
                writeln!(out, "  {:<10} {}", unknown.client_version, unknown.method)?;
            }
        }
        if !self.needed_is_there() {
            writeln!(out, "\nSomething needed is missing.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: Vec<Check>) -> Report {
        let unknown_methods = vec![UnknownMethod {
            client_version: "1.6.4".into(),
            method: "VolumeHeartbeat".into(),
            first_seen_at: 0,
        }];
        Report { checks, unknown_methods }
    }

    #[test]
    fn only_a_missing_need_makes_the_report_bad() {
        let fine = vec![Check::ok("a", "x"), Check::warn("b", "x", "speed", "cmd")];
        assert!(report(fine.clone()).needed_is_there());
        let bad = report([fine, vec![Check::missing("c", "x", "all", "cmd")]].concat());
        assert!(!bad.needed_is_there());
        let json = serde_json::to_value(bad.as_json()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["checks"][2]["status"], "missing");
        assert_eq!(json["unknown_methods"][0]["method"], "VolumeHeartbeat");
    }

    #[test]
    fn the_text_says_what_is_lost_and_what_mends_it() {
        let text =
            report(vec![Check::warn("fuse", "no /dev/fuse", "lazy reads", "modprobe fuse")]).to_string();
        for part in ["warn     fuse", "lost: lazy reads", "mend: modprobe fuse", "1.6.4      VolumeHeartbeat"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
