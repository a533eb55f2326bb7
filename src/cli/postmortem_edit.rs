//! `rollbackd postmortem --edit`: the editor, and what two editors at once need.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::incidents::query;
use crate::cli::output;
use crate::control::{IncidentReply, IncidentRequest, Request, Response};
use crate::incident::{Blame, HumanParts, PARTS, PostMortem, find_blame, markdown, parse_human};

/// How often a save is tried again because others saved meanwhile.
const TRIES_MAX: u32 = 5;
/// Largest document that is read back, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Opens the document in an editor, and saves what a person wrote. A text that cannot be saved stays in
/// its file.
pub(super) async fn run(document: &PostMortem, strict: bool, daemon: &DaemonOptions) -> Exit {
    let file = match write_file(document) {
        Ok(file) => file,
        Err(error) => {
            output::error_line(&format!("cannot write a file for the editor: {error}"));
            return Exit::Failed;
        }
    };
    let saved = match edit(&file) {
        Ok(parts) if parts == document.human => {
            output::stderr_line("nothing changed");
            Ok(())
        }
        Ok(parts) => match (print_blame(document, &parts, daemon).await, strict) {
            (count @ 1.., true) => {
                let what = if count == 1 { "sentence blames" } else { "sentences blame" };
                let why = format!("{count} {what} a person, and --strict is set");
                Err((Exit::Refused, Some(why)))
            }
            _ => save(document, parts, daemon).await,
        },
        Err(error) => Err((Exit::Failed, Some(error))),
    };
    match saved {
        Ok(()) => {
            let _ = std::fs::remove_file(&file);
            Exit::Done
        }
        Err((exit, error)) => {
            if let Some(error) = error {
                output::error_line(&error);
            }
            output::error_line(&format!("your text is in {}", file.display()));
            exit
        }
    }
}

/// Prints every new sentence that blames a person, and how to write it. Returns how many there are.
async fn print_blame(document: &PostMortem, parts: &HumanParts, daemon: &DaemonOptions) -> usize {
    let users: Vec<_> = known_users(document, daemon).await.into_iter().collect();
    let changed = PARTS.iter().map(|(part, ..)| *part);
    let changed = changed.filter(|part| parts.get(part) != document.human.get(part));
    let found: Vec<_> = changed.flat_map(|part| find_blame(parts.get(part), &users)).collect();
    for Blame { sentence, because, instead } in &found {
        output::stderr_line(&format!("blameless: {sentence:?}: \"{because}\"; {instead}"));
    }
    found.len()
}

/// The users who deployed this service: whom a text could name. None, and no message, where the daemon
/// does not tell: the text is checked all the same.
async fn known_users(document: &PostMortem, daemon: &DaemonOptions) -> BTreeSet<String> {
    let mut users = BTreeSet::new();
    let request = IncidentRequest::History { service: document.service.clone() };
    let Ok(mut client) = daemon.connect(&Request::Incident { request }).await else { return users };
    while let Ok(Some(Response::Incident { reply })) = client.next_response().await {
        if let IncidentReply::Deploy(row) = reply {
            users.extend(row.by.and_then(|by| by.user));
        }
    }
    // System accounts are words of the trade.
    users.retain(|user| user != "root" && user != "rollbackd");
    users
}

fn write_file(document: &PostMortem) -> std::io::Result<PathBuf> {
    let prefix = format!("rollbackd-{}-{}-", document.service, document.incident);
    let mut file = tempfile::Builder::new().prefix(&prefix).suffix(".md").tempfile()?;
    file.write_all(markdown::render(document).as_bytes())?;
    let (_, path) = file.keep()?;
    Ok(path)
}

/// Runs the editor, and reads the texts of people.
fn edit(file: &Path) -> Result<HumanParts, String> {
    let set = |name: &str| std::env::var(name).ok().filter(|it| !it.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // The variable can have arguments, so a shell reads it, as git does.
    let status =
        Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status();
    match status {
        Ok(status) if status.success() => (),
        Ok(status) => {
            return Err(format!("the editor `{editor}` failed: {status}; nothing is saved"));
        }
        Err(error) => return Err(format!("cannot start the editor `{editor}`: {error}")),
    }
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > DOCUMENT_BYTES_MAX {
        return Err(format!("the document has {length} bytes; at most {DOCUMENT_BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let parts = parse_human(&text)?;
    parts.validate()?;
    Ok(parts)
}

/// Why a text is not saved; without a text where it is printed already.
type NotSaved = (Exit, Option<String>);

/// Sends the texts. Where others saved meanwhile, parts that only one side changed are merged.
async fn save(
    document: &PostMortem,
    mine: HumanParts,
    daemon: &DaemonOptions,
) -> Result<(), NotSaved> {
    let (mut parts, mut digest) = (mine.clone(), document.human_digest.clone());
    for _ in 0..TRIES_MAX {
        let request = IncidentRequest::Edit {
            service: document.service.clone(),
            incident: document.incident,
            digest: digest.clone(),
            parts: parts.clone(),
        };
        let replies = query(daemon, request).await.map_err(|exit| (exit, None))?;
        match replies.into_iter().next() {
            Some(IncidentReply::Done { because }) => {
                output::stdout_line(&because);
                return Ok(());
            }
            Some(IncidentReply::Conflict { digest: present, parts: theirs }) => {
                parts = merge(&document.human, &mine, &theirs)
                    .map_err(|error| (Exit::Failed, Some(error)))?;
                digest = present;
            }
            _ => return Err((Exit::Failed, Some("the daemon did not answer the edit".to_owned()))),
        }
    }
    let why = format!("others saved {TRIES_MAX} times meanwhile; try again");
    Err((Exit::Busy, Some(why)))
}

/// The texts of both sides. A part that both changed differently is an error.
fn merge(base: &HumanParts, mine: &HumanParts, theirs: &HumanParts) -> Result<HumanParts, String> {
    let mut merged = theirs.clone();
    for (part, ..) in PARTS {
        let (was, own, other) = (base.get(part), mine.get(part), theirs.get(part));
        if own == was || own == other {
            continue;
        }
        if other != was {
            return Err(format!(
                "`{part}` was changed by another user meanwhile; open the document again and merge \
                 your text"
            ));
        }
        merged.set(part, own);
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(texts: &[(&str, &str)]) -> HumanParts {
        let mut parts = HumanParts::default();
        texts.iter().for_each(|(part, text)| parts.set(part, text));
        parts
    }

    #[test]
    fn two_editors_of_different_parts_both_keep_their_text() {
        let base = parts(&[("summary", "s")]);
        let mine = parts(&[("summary", "s"), ("root_cause", "mine")]);
        let theirs = parts(&[("summary", "theirs"), ("factors", "f")]);
        let merged = merge(&base, &mine, &theirs).unwrap();
        let all = [("summary", "theirs"), ("root_cause", "mine"), ("factors", "f")];
        assert_eq!(merged, parts(&all));
        let removed = merge(&base, &parts(&[]), &parts(&[("summary", "s"), ("factors", "f")]));
        assert_eq!(removed.unwrap(), parts(&[("factors", "f")]));
    }

    #[test]
    fn two_editors_of_one_part_are_told() {
        let base = parts(&[]);
        let (mine, theirs) = (parts(&[("factors", "a")]), parts(&[("factors", "b")]));
        assert!(merge(&base, &mine, &theirs).unwrap_err().contains("`factors`"));
        assert_eq!(merge(&base, &mine, &mine), Ok(mine));
    }
}
