//! The ramp of a deploy: the shares of the users that meet a new release, one after the other.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::range::in_range;
use crate::config::toml_table::TomlTable;
use crate::config::value::{
    ParseResult, Raw, bad_value, duration, format_duration, one_of, string_list, unsigned_integer,
    wrong_type,
};
use crate::decide::{RampSettings, RampShares};
use crate::model::{RampReason, WHOLE_PPM};

/// Longest ramp.
const STEPS_MAX: usize = 10;
/// How long a step lasts at most.
const STEP_MAX: Duration = Duration::from_mins(2);
/// How long a step lasts at least.
const STEP_MIN: Duration = Duration::from_secs(15);
const HOUR: Duration = Duration::from_hours(1);
const EXAMPLE: &str = "write shares that grow, such as [\"5%\", \"25%\", \"50%\"]";
const FORMS: &str =
    "write \"auto\", [\"100%\"], or shares that grow, such as [\"5%\", \"25%\", \"50%\"]";
const AUTO: &str = "auto";

/// The keys of a ramp.
pub(super) struct RawRamp {
    shares: Raw<RawShares>,
    step: Raw<Duration>,
    wait: Raw<&'static str>,
    control: Raw<u64>,
}

/// The value of `ramp`.
#[derive(Debug, Clone)]
enum RawShares {
    Auto,
    Listed(Vec<Spanned<String>>),
}

/// "auto", or a list of shares.
fn shares_or_auto(value: &DeValue<'_>) -> ParseResult<RawShares> {
    match value.as_str() {
        Some(AUTO) => Ok(RawShares::Auto),
        Some(text) => {
            let what = format!("is \"{}\", which is neither \"auto\" nor a list", shorten(text));
            Err(bad_value(what, FORMS))
        }
        None if value.as_array().is_none() => {
            Err(wrong_type(value, "\"auto\" or a list of shares", FORMS))
        }
        None => string_list(value).map(RawShares::Listed),
    }
}

pub(super) fn read(table: &mut TomlTable<'_>, problems: &mut Problems) -> RawRamp {
    RawRamp {
        shares: table.read("ramp", shares_or_auto, problems),
        step: table.read("ramp_step", duration, problems),
        wait: table.read("ramp_wait", one_of(["continue", "hold"]), problems),
        control: table.read("control", unsigned_integer, problems),
    }
}

/// Checks the ramp, which a bake of this length contains. `bake_span` is the bake's place in the file.
pub(super) fn check(
    raw: &RawRamp,
    bake: Duration,
    bake_span: Option<Range<usize>>,
    sessions_stay: bool,
    problems: &mut Problems,
) -> RampSettings {
    let listed = match raw.shares.as_ref().map(|given| (given, given.get_ref())) {
        None | Some((_, RawShares::Auto)) => None,
        // A wrong list is reported; nothing else is said about it.
        Some((given, RawShares::Listed(list))) => Some(shares(list, given.span(), problems)),
    };
    let step_max = in_range("ramp_step", &raw.step, STEP_MAX, STEP_MIN..=HOUR, problems);
    if let Some(Some(shares_ppm)) = &listed {
        check_length(raw, shares_ppm.len(), step_max, (bake, bake_span), problems);
    }
    let waits = raw.wait.as_ref().is_some_and(|given| *given.get_ref() == "hold");
    let control_min = control_min(raw, problems);
    let shares = match &listed {
        None => RampShares::Auto,
        Some(shares_ppm) => RampShares::Listed(shares_ppm.clone().unwrap_or_default()),
    };
    let settings = RampSettings { shares, step_max, waits, control_min, sessions_stay };
    match listed {
        None => warn_never_automatic(raw, &settings, bake, problems),
        Some(Some(shares_ppm)) if shares_ppm.is_empty() => {
            let help = "write ramp = [\"5%\", \"25%\", \"50%\"], or leave it out";
            warn_no_effect(raw, "a deploy gets all users at once", help, problems);
        }
        Some(_) => (),
    }
    settings
}

/// The longest ramp fits into the bake.
fn check_length(
    raw: &RawRamp,
    steps: usize,
    step_max: Duration,
    (bake, bake_span): (Duration, Option<Range<usize>>),
    problems: &mut Problems,
) {
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    let longest = step_max.saturating_mul(steps);
    if let Some(given) = raw.shares.as_ref().filter(|_| bake < longest) {
        let (longest, bake_text) = (format_duration(longest), format_duration(bake));
        let what = format!(
            "the ramp takes up to {longest}, longer than the bake of {bake_text}: {steps} steps of \
             at most {}",
            format_duration(step_max)
        );
        let help = "write fewer steps, a shorter `ramp_step`, or a longer `bake`";
        let problem = Problem::error(ProblemCode::TooSlow, given.span(), what).help(help);
        problems.push(match bake_span {
            Some(at) => problem.related(at, "the bake"),
            None => problem,
        });
    }
}

/// The shares in parts per million. Empty: all users at once. `None` if the list is wrong.
fn shares(
    list: &[Spanned<String>],
    span: Range<usize>,
    problems: &mut Problems,
) -> Option<Vec<u32>> {
    if !(1..=STEPS_MAX).contains(&list.len()) {
        let what = format!("`ramp` has {} steps; it has 1 to {STEPS_MAX}", list.len());
        problems.push(Problem::error(ProblemCode::OutOfRange, span, what).help(FORMS));
        return None;
    }
    let mut shares: Vec<u32> = Vec::new();
    let mut is_wrong = false;
    for item in list {
        let Some(share) = share(item, problems) else {
            is_wrong = true;
            continue;
        };
        if let Some(before) = shares.last().filter(|before| share <= **before) {
            let before = f64::from(*before) / 10_000.0;
            let what = format!(
                "`ramp` goes from {before}% to \"{}\": a user never goes back in a ramp",
                shorten(item.get_ref())
            );
            problems.push(Problem::error(ProblemCode::BadValue, item.span(), what).help(EXAMPLE));
            is_wrong = true;
        }
        shares.push(share);
    }
    match shares.as_slice() {
        _ if is_wrong => None,
        [WHOLE_PPM] => Some(Vec::new()),
        [.., WHOLE_PPM] => {
            let what = "the last step of `ramp` leaves no control to compare with";
            let help = "leave \"100%\" out: the control follows when the release is accepted";
            problems.push(Problem::error(ProblemCode::Contradiction, span, what).help(help));
            None
        }
        _ => Some(shares),
    }
}

fn share(item: &Spanned<String>, problems: &mut Problems) -> Option<u32> {
    let text = item.get_ref();
    let percent = text.strip_suffix('%').and_then(|it| it.trim_end().parse::<f64>().ok());
    match percent {
        Some(percent) if (0.1..=100.0).contains(&percent) => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
            let ppm = (percent * 10_000.0).round() as u32;
            Some(ppm)
        }
        _ => {
            let what =
                format!("`ramp` has \"{}\", which is not a share from 0.1% to 100%", shorten(text));
            let help = if text == AUTO { "write ramp = \"auto\", without a list" } else { EXAMPLE };
            problems.push(Problem::error(ProblemCode::BadValue, item.span(), what).help(help));
            None
        }
    }
}

/// How many users stay on the control at least.
fn control_min(raw: &RawRamp, problems: &mut Problems) -> usize {
    let Some(given) = &raw.control else { return 1 };
    let control = *given.get_ref();
    if control < 2 {
        let what =
            format!("`control` is {control}: a control of one user says nothing about the others");
        let help = "write 2 or more, or leave `control` out";
        problems.push(Problem::error(ProblemCode::OutOfRange, given.span(), what).help(help));
    }
    in_range("control", &raw.control, 1, 0..=10_000, problems).try_into().unwrap_or(usize::MAX)
}

/// With `ramp = "auto"` no deploy has a ramp if the bake is too short, or if no session moves. A
/// service without a line about it gets no warning: all users at once is what its settings imply.
fn warn_never_automatic(
    raw: &RawRamp,
    settings: &RampSettings,
    bake: Duration,
    problems: &mut Problems,
) {
    let Some(obstacle) = settings.obstacle(bake) else { return };
    let what = format!("a deploy gets all users at once, {obstacle}");
    let help = match obstacle {
        RampReason::ShortBake { .. } => {
            "write a longer `bake`, a shorter `ramp_step`, or leave it out"
        }
        _ => {
            "leave it out, or write ramp = [\"5%\", \"25%\", \"50%\"]: new sessions try the release"
        }
    };
    if let Some(given) = &raw.shares {
        let what = format!("`ramp` has no effect: {what}");
        problems.push(Problem::warning(ProblemCode::Contradiction, given.span(), what).help(help));
    }
    warn_no_effect(raw, &what, help, problems);
}

/// The other keys of a ramp, where no deploy has one.
fn warn_no_effect(raw: &RawRamp, why: &str, help: &str, problems: &mut Problems) {
    let step = raw.step.as_ref().filter(|it| *it.get_ref() != STEP_MAX);
    let wait = raw.wait.as_ref().filter(|it| *it.get_ref() != "continue");
    let spans = [
        ("ramp_step", step.map(Spanned::span)),
        ("ramp_wait", wait.map(Spanned::span)),
        ("control", raw.control.as_ref().map(Spanned::span)),
    ];
    for (name, span) in spans {
        if let Some(span) = span {
            let what = format!("`{name}` has no effect: {why}");
            problems.push(Problem::warning(ProblemCode::Contradiction, span, what).help(help));
        }
    }
}

/// A ramp in which no live session takes part tries the release on new sessions only.
pub(super) fn warn_stuck_sessions(
    session_state: &Raw<&'static str>,
    move_sessions: &Raw<&'static str>,
    problems: &mut Problems,
) {
    let has = |key: &Raw<&'static str>, value: &str| {
        key.as_ref().filter(|given| *given.get_ref() == value).map(Spanned::span)
    };
    let hard = has(session_state, "hard").map(|span| (span, "session_state = \"hard\""));
    let found = hard.or_else(|| {
        has(move_sessions, "rollback").map(|span| (span, "move_sessions = \"rollback\""))
    });
    if let Some((span, why)) = found {
        let what = format!(
            "with {why} no live session takes part in the ramp: only new sessions try a release"
        );
        let help = "a service whose sessions last longer than its bake needs sessions that move";
        problems.push(Problem::warning(ProblemCode::WeakEvidence, span, what).help(help));
    }
}
