//! Where signals lie: recordings of a service, a recording, a table of counts, Prometheus.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::model::{Moment, Number};
use crate::record;

use super::super::exit::Exit;
use super::super::say;
use super::contender::Contenders;
use super::source::Source;
use super::table;

/// One thing to replay.
#[derive(Debug)]
pub(super) enum Place {
    /// The recording of a deploy of a service.
    Deploy(String, Number, PathBuf),
    /// A recording somewhere.
    Recording(PathBuf),
    /// A table of counts.
    Table(PathBuf),
    /// The range that the options tell.
    Prometheus,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// A deploy, or a second of a table.
    Number(u64),
    /// A date.
    Date(Moment),
}

/// What an argument names: a file if it looks like one, else a service.
pub(super) fn find(
    named: &str,
    from: Option<From>,
    contenders: &Contenders,
) -> Result<Vec<Place>, (Exit, String)> {
    let path = PathBuf::from(named);
    if path.extension().is_some_and(|it| it == "signals") {
        return Ok(vec![Place::Recording(path)]);
    }
    let known = contenders.settings().is_some_and(|it| it.services.contains_key(named));
    if !known && (named.contains('/') || path.extension().is_some() || path.is_file()) {
        return match from {
            Some(From::Date(_)) => {
                let what = "--from takes a second for a CSV file; write a whole number";
                Err((Exit::BadArguments, what.to_owned()))
            }
            _ => Ok(vec![Place::Table(path)]),
        };
    }
    let Some(settings) = contenders.settings() else {
        let what = format!(
            "no configuration tells where the recordings of {named} lie; name one with --current"
        );
        return Err((Exit::Unknown, what));
    };
    if !known {
        let names: Vec<_> = settings.services.keys().map(String::as_str).collect();
        let names = names.join(", ");
        return Err((Exit::Unknown, format!("no service {named}; there is {names}")));
    }
    let dir = settings.state_dir.join(named);
    let recordings = record::recordings(&dir).unwrap_or_default();
    let wanted = recordings.into_iter().filter(|(number, path)| match from {
        Some(From::Number(first)) => first <= u64::from(number.0),
        Some(From::Date(day)) => {
            record::read_recording(path).is_ok_and(|it| day <= it.opening.opened)
        }
        None => true,
    });
    let places: Vec<_> =
        wanted.map(|(number, path)| Place::Deploy(named.to_owned(), number, path)).collect();
    if places.is_empty() {
        let dir = dir.display();
        let what = format!("no such recording of {named} in {dir}; each deploy makes one");
        return Err((Exit::Unknown, what));
    }
    Ok(places)
}

impl Place {
    /// Reads it.
    pub(super) fn read(&self, from: Option<From>) -> Result<Source, String> {
        match self {
            Self::Deploy(service, number, path) => {
                let name = format!("{service} deploy {number}");
                let mut source = recording(name, path)?;
                source.service = Some(service.clone());
                Ok(source)
            }
            Self::Recording(path) => recording(path.display().to_string(), path),
            Self::Table(path) => {
                let from = match from {
                    Some(From::Number(second)) => second,
                    Some(From::Date(_)) | None => 0,
                };
                table::read(path, from)
            }
            Self::Prometheus => Err("Prometheus is asked, not read".to_owned()),
        }
    }
}

fn recording(name: String, path: &Path) -> Result<Source, String> {
    let recorded = record::read_recording(path).map_err(|error| error.to_string())?;
    if recorded.torn > 0 {
        let (path, torn) = (path.display(), recorded.torn);
        say::aside(&format!("{path}: the last {torn} bytes are torn and left out"));
    }
    if recorded.full {
        say::aside(&format!("{}: it was full; the rest of the bake is missing", path.display()));
    }
    Ok(Source::recorded(name, recorded))
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        moment(text).map(Self::Date)
    }
}

/// Seconds since 1970, a date (UTC) or an RFC 3339 time.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
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
