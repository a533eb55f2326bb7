//! Validates requests: their texts go to commands, environments, timelines and terminals.

use crate::control::protocol::Request;
use crate::model::{
    DeployRequest, Release, VERSION_MAX, closest_match, is_unsafe_to_print, is_valid_version,
};

const ARTIFACT_MAX: usize = 4096;
const REASON_MAX: usize = 4096;
const KEY_MAX: usize = 256;
const PRINTED_MAX: usize = 60;
/// Services that a message lists.
const SERVICES_LISTED: usize = 20;

impl Request {
    /// Checks every field.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn validate(&self) -> Result<(), String> {
        match self {
            Self::Deploy(DeployRequest { version, artifact, environment: set, .. }) => {
                validate_version(version)?;
                artifact.as_deref().map_or(Ok(()), validate_artifact)?;
                set.iter().try_for_each(|(key, value)| validate_setting(key, value))
            }
            Self::Rollback { because, .. }
            | Self::Promote { because, .. }
            | Self::Hold { because, .. }
            | Self::Resume { because, .. } => validate_reason(because),
            Self::Incident { request } => request.validate(),
            Self::Status { .. }
            | Self::Explain { .. }
            | Self::Reload {}
            | Self::Timeline { .. }
            | Self::NotifyTest { .. } => Ok(()),
        }
    }
}

/// The version goes into paths and commands.
fn validate_version(version: &str) -> Result<(), String> {
    if is_valid_version(version) {
        return Ok(());
    }
    Err(format!(
        "{} is not a valid version; write 1 to {VERSION_MAX} letters, digits and . _ - + : @ ~, a \
         letter or digit first, such as v1.4.2",
        printable(version)
    ))
}

fn validate_artifact(artifact: &str) -> Result<(), String> {
    let problem = if artifact.is_empty() {
        "is empty".to_owned()
    } else if artifact.len() > ARTIFACT_MAX {
        format!("is longer than {ARTIFACT_MAX} bytes")
    } else if artifact.contains(is_unsafe_to_print) {
        "contains a control character".to_owned()
    } else if artifact.starts_with('-') {
        "begins like an option".to_owned()
    } else if artifact.split('/').any(|part| part == "..") {
        "contains `..`".to_owned()
    } else {
        return Ok(());
    };
    Err(format!(
        "the artifact {} {problem}; write a plain path or an image reference, such as /opt/weather/v2",
        printable(artifact)
    ))
}

fn validate_setting(key: &str, value: &str) -> Result<(), String> {
    let printed = printable(key);
    let is_name_char = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let starts_with_digit = key.starts_with(|it: char| it.is_ascii_digit());
    if key.is_empty() || key.len() > KEY_MAX || starts_with_digit || !key.chars().all(is_name_char)
    {
        return Err(format!(
            "{printed} is not a valid name of a variable; write letters, digits and _, such as \
             LOG_LEVEL=debug"
        ));
    }
    if Release::is_reserved_variable(key) {
        return Err(format!("{printed} is set by the daemon; leave it out"));
    }
    if value.contains('\0') {
        return Err(format!(
            "the value of {printed} contains a NUL byte, which an environment cannot contain"
        ));
    }
    Ok(())
}

/// The reason is printed as one line of a timeline.
fn validate_reason(because: &str) -> Result<(), String> {
    let length = because.chars().count();
    if because.trim().is_empty() {
        return Err("the reason is empty; write why, for readers of the timeline".to_owned());
    }
    if length > REASON_MAX {
        return Err(format!("the reason has {length} characters; write at most {REASON_MAX}"));
    }
    if because.contains(is_unsafe_to_print) {
        return Err(format!(
            "the reason {} contains a line break or another control character; write one plain line",
            printable(because)
        ));
    }
    Ok(())
}

/// The message for a service that does not exist: the most similar name, and those that exist.
pub fn unknown_service(name: &str, known: &[&str]) -> String {
    let is_plain = !name.is_empty()
        && name.len() <= PRINTED_MAX
        && !name.contains(|it: char| it.is_control() || it.is_whitespace());
    let shown = if is_plain { name.to_owned() } else { printable(name) };
    if known.is_empty() {
        return format!("no service {shown}; none is configured");
    }
    let meant = closest_match(name, known).map(|it| format!("did you mean {it}? "));
    let listed = known.iter().take(SERVICES_LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = match known.len().saturating_sub(SERVICES_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("no service {shown}; {}there are {listed}{more}", meant.unwrap_or_default())
}

/// Shortens a text and escapes what is not safe to print.
pub fn printable(text: &str) -> String {
    let prefix: String = text.chars().take(PRINTED_MAX).collect();
    let more = if prefix.len() < text.len() { "..." } else { "" };
    format!("{prefix:?}{more}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn deploy(version: &str, artifact: Option<&str>, set: &[(&str, &str)]) -> Result<(), String> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let set: BTreeMap<_, _> = set.iter().map(own).collect();
        let (service, version) = ("weather".to_owned(), version.to_owned());
        let artifact = artifact.map(ToOwned::to_owned);
        let (environment, rest) = (set, DeployRequest::default());
        Request::Deploy(DeployRequest { service, version, artifact, environment, ..rest })
            .validate()
    }

    #[test]
    fn a_version_has_safe_characters() {
        for good in ["v1", "1.4.2-rc.1+build~7", "sha256:0a1b", "2026-08-31T10_00", "app@2"] {
            assert_eq!(deploy(good, None, &[]), Ok(()));
        }
        let long = "v".repeat(129);
        let wrong = ["", " ", "a b", "a/b", "../../x", "..", "-rf", "a\nb", "a\0b", "ü", &long];
        for wrong in wrong {
            let why = deploy(wrong, None, &[]).unwrap_err();
            assert!(why.contains("such as v1.4.2") && why.len() < 400, "{why}");
            assert!(!why.contains(char::is_control), "{why:?}");
        }
    }

    #[test]
    fn an_artifact_is_a_plain_path_or_a_reference() {
        for good in ["/opt/v2", "registry.example.org:5000/a/b@sha256:00", "a..b", "./x y"] {
            assert_eq!(deploy("v2", Some(good), &[]), Ok(()));
        }
        for wrong in ["", "../../x", "/opt/../etc", "a\nb", "--eval=x", &"a".repeat(5000)] {
            deploy("v2", Some(wrong), &[]).unwrap_err();
        }
    }

    #[test]
    fn a_setting_leaves_alone_what_the_daemon_sets() {
        assert_eq!(deploy("v2", None, &[("A_1", "x\ny"), ("_", ""), ("PATH", "/bin")]), Ok(()));
        for wrong in ["", "A B", "1A", "A=B", "A\n", "PORT", "SOCKET", "ROLLBACKD_OWNER"] {
            deploy("v2", None, &[(wrong, "x")]).unwrap_err();
        }
        deploy("v2", None, &[("A", "x\0y")]).unwrap_err();
    }

    #[test]
    fn an_unknown_service_has_a_suggestion() {
        let known = ["files", "weather"];
        let typo = unknown_service("wether", &known);
        assert_eq!(typo, "no service wether; did you mean weather? there are files, weather");
        assert_eq!(unknown_service("x", &known), "no service x; there are files, weather");
        assert_eq!(unknown_service("x", &[]), "no service x; none is configured");
        assert!(!unknown_service("a\u{1b}b", &known).contains(char::is_control));
        let many = ["s"; 30];
        assert!(unknown_service("other", &many).ends_with(" and 10 more"));
    }

    #[test]
    fn a_reason_is_one_line() {
        let check = |because: &str| {
            let (service, because) = ("weather".to_owned(), because.to_owned());
            Request::Hold { service, because }.validate()
        };
        assert_eq!(check("checkout fails: see #12, 5 % of größe"), Ok(()));
        for wrong in ["", "  ", "a\nb", "\u{1b}[31m", &"x".repeat(64 * 1024)] {
            let why = check(wrong).unwrap_err();
            assert!(why.len() < 400 && !why.contains(char::is_control), "{why:?}");
        }
    }
}
