//! `rollbackd explain`

use clap::Args;

use crate::cli::complete;
use crate::cli::daemon_options::{DaemonOptions, unexpected_response};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::status_lines::Lines;
use crate::cli::terminal::Terminal;
use crate::control::{Explanation, ExplanationPoint, Request, Response, SettingValue};

/// Explain why a service is where it is, what would change that, and which settings decide.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, json } = options;
    match daemon.ask(&Request::Explain { service }).await {
        Ok(Response::Explanation { explanation }) if json => output::json_line(&explanation),
        Ok(Response::Explanation { explanation }) => {
            output::stdout_line(render(&explanation, Terminal::stdout()).trim_end());
        }
        Ok(_) => return unexpected_response(),
        Err(exit) => return exit,
    }
    Exit::Done
}

fn render(explanation: &Explanation, terminal: Terminal) -> String {
    let Explanation { service, state, points, settings } = explanation;
    let mut lines = Lines::new(terminal);
    lines.push(&format!("{service}: {state}"));
    for ExplanationPoint { topic, text } in points {
        lines.push(&format!("  {topic}: {text}"));
    }
    if !settings.is_empty() {
        lines.push("  settings that decide:");
    }
    for SettingValue { name, value, awaits_deploy } in settings {
        let waits = if *awaits_deploy { "  (from the next deploy)" } else { "" };
        lines.push(&format!("    {name} = {value}{waits}"));
    }
    lines.text
}

#[cfg(test)]
mod tests {
    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));

    const REPLIES: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/control-replies.txt"));

    #[test]
    fn an_explanation_fits_its_terminal() {
        let line = REPLIES.lines().find_map(|line| line.strip_prefix("explanation  "));
        let Response::Explanation { explanation } = serde_json::from_str(line.unwrap()).unwrap()
        else {
            panic!("{line:?}")
        };
        let mut shown = String::new();
        for width in [40, 80, usize::MAX] {
            let terminal = Terminal { can_redraw: false, has_colour: false, width, height: 50 };
            let text = render(&explanation, terminal);
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{longest:?} columns:\n{text}");
            shown.push_str(&format!("{text}\n"));
        }
        hold("explanation-shown.txt", &shown);
    }
}
