//! Where signals lie: recordings of a service, a recording, a table of counts, Prometheus.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::backtest::csv;
use crate::backtest::source::Source;
use crate::backtest::variants::Variants;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::{Moment, ReleaseNumber};
use crate::record;

/// One thing to replay.
#[derive(Debug)]
pub(crate) enum SourceLocation {
    /// The recording of a deploy of a service.
    ServiceRecording(String, ReleaseNumber, PathBuf),
    /// A recording somewhere.
    Recording(PathBuf),
    /// A table of counts.
    CsvFile(PathBuf),
    /// The range that the options tell.
    Prometheus,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplayStart {
    /// A deploy, or a second of a table.
    DeployOrSecond(u64),
    /// A date.
    Date(Moment),
}

/// What an argument names: a file if it looks like one, else a service.
pub(crate) fn locate(
    named: &str,
    from: Option<ReplayStart>,
    variants: &Variants,
) -> Result<Vec<SourceLocation>, (Exit, String)> {
    let path = PathBuf::from(named);
    if path.extension().is_some_and(|it| it == "signals") {
        return Ok(vec![SourceLocation::Recording(path)]);
    }
    let known = variants.settings().is_some_and(|it| it.services.contains_key(named));
    if !known && (named.contains('/') || path.extension().is_some() || path.is_file()) {
        return match from {
            Some(ReplayStart::Date(_)) => {
                let what = "--from takes a second for a CSV file; write a whole number";
                Err((Exit::InvalidArguments, what.to_owned()))
            }
            _ => Ok(vec![SourceLocation::CsvFile(path)]),
        };
    }
    let Some(settings) = variants.settings() else {
        let what = format!(
            "no configuration tells where the recordings of {named} lie; name one with --current"
        );
        return Err((Exit::NotFound, what));
    };
    if !known {
        let names: Vec<_> = settings.services.keys().map(String::as_str).collect();
        let names = names.join(", ");
        return Err((Exit::NotFound, format!("no service {named}; there is {names}")));
    }
    let dir = settings.state_dir.join(named);
    let recordings = record::list_signal_logs(&dir).unwrap_or_default();
    let wanted = recordings.into_iter().filter(|(number, path)| match from {
        Some(ReplayStart::DeployOrSecond(first)) => first <= u64::from(number.0),
        Some(ReplayStart::Date(day)) => {
            record::read_signal_log(path).is_ok_and(|it| day <= it.header.opened)
        }
        None => true,
    });
    let locations: Vec<_> = wanted
        .map(|(number, path)| SourceLocation::ServiceRecording(named.to_owned(), number, path))
        .collect();
    if locations.is_empty() {
        let dir = dir.display();
        let what = format!("no such recording of {named} in {dir}; each deploy makes one");
        return Err((Exit::NotFound, what));
    }
    Ok(locations)
}

impl SourceLocation {
    /// Reads it.
    pub(crate) fn load(&self, from: Option<ReplayStart>) -> Result<Source, String> {
        match self {
            Self::ServiceRecording(service, number, path) => {
                let name = format!("{service} deploy {number}");
                let mut source = load_recording(name, path)?;
                source.service = Some(service.clone());
                Ok(source)
            }
            Self::Recording(path) => load_recording(path.display().to_string(), path),
            Self::CsvFile(path) => {
                let from = match from {
                    Some(ReplayStart::DeployOrSecond(second)) => second,
                    Some(ReplayStart::Date(_)) | None => 0,
                };
                csv::load(path, from)
            }
            Self::Prometheus => Err("Prometheus is asked, not read".to_owned()),
        }
    }
}

fn load_recording(name: String, path: &Path) -> Result<Source, String> {
    let recorded = record::read_signal_log(path).map_err(|error| error.to_string())?;
    if recorded.truncated_bytes > 0 {
        let (path, torn) = (path.display(), recorded.truncated_bytes);
        output::stderr_line(&format!("{path}: the last {torn} bytes are torn and left out"));
    }
    if recorded.size_limit_reached {
        output::stderr_line(&format!(
            "{}: it was full; the rest of the bake is missing",
            path.display()
        ));
    }
    Ok(Source::from_recording(name, recorded))
}

impl FromStr for ReplayStart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::DeployOrSecond(number));
        }
        parse_moment(text).map(Self::Date)
    }
}

/// Seconds since 1970, a date (UTC) or an RFC 3339 time.
pub(crate) fn parse_moment(text: &str) -> Result<Moment, String> {
    let date = || {
        let date: jiff::civil::Date = text.parse().ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|it| it.timestamp())
    };
    let seconds = || {
        let seconds: f64 = text.parse().ok()?;
        jiff::Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()
    };
    let time = text.parse::<jiff::Timestamp>().ok().or_else(date).or_else(seconds);
    let ms = time.and_then(|it| u64::try_from(it.as_millisecond()).ok());
    ms.map(Moment)
        .ok_or_else(|| "write 2026-11-23, 2026-11-23T10:00:00Z or seconds since 1970".to_owned())
}
