//! Writes the manual pages and the completions of the package into a folder:
//! `cargo run --example manuals -- FOLDER`.
//!
//! The verbs come from the arguments as they are parsed, the settings from config.toml.example
//! (tests hold that file to the settings that are read), so neither can fall behind.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use rollbackd::cli::Cli;

const EXAMPLE: &str = include_str!("../config.toml.example");

/// What stands around the settings in rollbackd.toml(5).
const PAGE_HEADER: &str = r#".SH NAME
rollbackd.toml \- configuration of rollbackd
.SH SYNOPSIS
\fI/etc/rollbackd/config.toml\fR
.SH DESCRIPTION
One TOML file configures
.BR rollbackd (1).
The daemon takes a new file on SIGHUP, whole or not at all.
Addresses, folders, runtimes and the set of services change only with a restart.
"#;
const PAGE_FOOTER: &str = r#".SH FILES
.TP
\fI/usr/share/doc/rollbackd/examples/config.toml.example\fR
The example, as it was shipped.
.SH SEE ALSO
.BR rollbackd (1),
.BR rollbackd-check (1),
.BR systemd.unit (5)
"#;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return exit_with_error("name the folder to write into");
    };
    match write_pages(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_with_error(&error.to_string()),
    }
}

#[expect(clippy::print_stderr, reason = "nobody else hears a tool of the build")]
fn exit_with_error(why: &str) -> ExitCode {
    eprintln!("manuals: {why}");
    ExitCode::FAILURE
}

fn write_pages(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = visible_commands(&Cli::command());
    command.build();
    write_command_page(&command, folder)?;
    for command in command.get_subcommands() {
        write_command_page(command, folder)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "rollbackd", folder)?;
    }
    let page = config_page(EXAMPLE).map_err(std::io::Error::other)?;
    fs::write(folder.join("rollbackd.toml.5"), page)
}

/// The verbs that people use: completions offer hidden ones, too.
fn visible_commands(all: &Command) -> Command {
    Command::new("rollbackd")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .after_help(all.get_after_help().cloned().unwrap_or_default())
        .args(all.get_arguments().cloned())
        .subcommands(all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned())
        .disable_help_subcommand(true)
}

/// The page about a verb, or about all of them.
fn write_command_page(command: &Command, folder: &Path) -> std::io::Result<()> {
    let man = Man::new(command.clone())
        .source(concat!("rollbackd ", env!("CARGO_PKG_VERSION")))
        .manual("rollbackd");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let page = String::from_utf8(page).map_err(std::io::Error::other)?;
    let page = page.replace(".SH EXTRA\nExit codes:", ".SH \"EXIT STATUS\"");
    let also = ".SH \"SEE ALSO\"\n.BR rollbackd (1),\n.BR rollbackd.toml (5)\n";
    fs::write(folder.join(man.get_filename()), page + also)
}

/// The page about the settings. Comments stand above what they explain; a setting without a
/// default is the one that its comment shows after "For example:".
fn config_page(example: &str) -> Result<String, String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut page =
        format!(".TH rollbackd.toml 5 \"\" \"rollbackd {version}\" rollbackd\n{PAGE_HEADER}");
    let mut text = String::new();
    let mut introduced = false;
    for line in example.lines() {
        if let Some(heading) = line.strip_prefix("# ---- ") {
            push_paragraph(&mut page, ".PP", "", &mut text);
            let heading = heading.trim_end_matches([' ', '-']);
            let _ = writeln!(page, ".SS \"{}\"", escape_roff(&capitalize(heading)));
        } else if let Some(comment) = line.strip_prefix("# ") {
            let _ = writeln!(text, "{}", escape_roff(comment));
            if let Some((_, shown)) = comment.split_once("For example: ")
                && let Some((key, _)) = shown.split_once(" = ")
            {
                push_paragraph(&mut page, ".TP", key, &mut text);
            }
        } else if line.starts_with('[') {
            let _ = writeln!(page, ".SH \"{}\"", escape_roff(line));
            page.push_str(&std::mem::take(&mut text));
        } else if let Some((key, value)) = line.split_once(" = ") {
            let default = key.strip_prefix('#');
            // Two settings below one comment.
            if text.is_empty() {
                text.push_str("See the setting above.\n");
            }
            let word =
                if default.is_some() { "Default" } else { "There is no default; for example" };
            let _ = writeln!(text, ".br\n{word}: {}", escape_roff(value));
            push_paragraph(&mut page, ".TP", default.unwrap_or(key), &mut text);
        } else if line.trim().is_empty() && !introduced {
            introduced = true;
            push_paragraph(&mut page, ".PP", "", &mut text);
        }
    }
    if !text.is_empty() {
        return Err(format!("config.toml.example: this explains no setting: {text}"));
    }
    page.push_str(PAGE_FOOTER);
    Ok(page)
}

/// Writes down what was gathered, and begins anew.
fn push_paragraph(page: &mut String, request: &str, key: &str, text: &mut String) {
    if text.is_empty() {
        return;
    }
    let _ = writeln!(page, "{request}");
    if !key.is_empty() {
        let _ = writeln!(page, "\\fB{}\\fR", escape_roff(key));
    }
    page.push_str(text);
    text.clear();
}

fn capitalize(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

/// Text as roff takes it: a hyphen is one that can be copied, no line begins a request.
fn escape_roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
