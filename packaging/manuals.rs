//! Writes the manual pages and the completions of the package into a directory:
//! `cargo run --example manuals -- DIRECTORY`.
//!
//! The pages of the verbs come from the arguments that clap parses, the others from
//! packaging/manual. `tests/documents.rs` holds those to the code.

mod markdown;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use rollbackd::cli::{Cli, completion_script};

/// The folder of the pages in Markdown.
const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/manual");

/// The pages that each page of a verb names.
const ALSO: &str = ".BR rollbackd (1),\n.BR rollbackd.toml (5),\n.BR rollbackd\\-deciding (7),\n\
    .BR rollbackd\\-sessions (7),\n.BR rollbackd\\-systemd (7),\n.BR rollbackd\\-artifacts (7),\n\
    .BR rollbackd\\-backtest (7),\n.BR rollbackd\\-timeline (7)\n";

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return fail("name the directory to write to");
    };
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

#[expect(clippy::print_stderr, reason = "a tool of the build has no log")]
fn fail(why: &str) -> ExitCode {
    eprintln!("manuals: {why}");
    ExitCode::FAILURE
}

fn write(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = visible(&Cli::command());
    command.build();
    verb(&command, folder)?;
    for command in command.get_subcommands() {
        verb(command, folder)?;
    }
    for (shell, file) in
        [("bash", "rollbackd.bash"), ("zsh", "_rollbackd"), ("fish", "rollbackd.fish")]
    {
        fs::write(folder.join(file), completion_script(shell)?)?;
    }
    for entry in fs::read_dir(PAGES)? {
        let path = entry?.path();
        let page = markdown::render(&fs::read_to_string(&path)?)
            .map_err(|why| std::io::Error::other(format!("{}: {why}", path.display())))?;
        fs::write(folder.join(page.file), page.roff)?;
    }
    Ok(())
}

/// The verbs without the hidden ones.
fn visible(all: &Command) -> Command {
    Command::new("rollbackd")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .after_help(all.get_after_help().cloned().unwrap_or_default())
        .args(all.get_arguments().cloned())
        .subcommands(all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned())
        .disable_help_subcommand(true)
}

/// The page of a verb, or of the program.
fn verb(command: &Command, folder: &Path) -> std::io::Result<()> {
    let man = Man::new(command.clone())
        .source(concat!("rollbackd ", env!("CARGO_PKG_VERSION")))
        .manual("rollbackd");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let page = String::from_utf8(page).map_err(std::io::Error::other)?;
    let page = page.replace(".SH EXTRA\nExit codes:", ".SH \"EXIT STATUS\"");
    let also = format!(".SH \"SEE ALSO\"\n{ALSO}");
    fs::write(folder.join(man.get_filename()), page + &also)
}
