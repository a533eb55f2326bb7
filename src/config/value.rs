//! Parses one value: a duration, a share, a size, an address, a list.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use jiff::fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::address::Address;
use crate::config::problem::{ProblemCode, shorten};
use crate::model::closest_match;

/// Longest path of a unix socket that the kernel accepts, in bytes.
const SOCKET_PATH_MAX: usize = 107;
/// Percentages are rounded to this precision.
const PERCENT_PRECISION: f64 = 1e7;

/// A setting and its span, if the file has it.
pub(super) type Raw<T> = Option<Spanned<T>>;

/// Names with values, each with its span.
pub(super) type RawMap<T> = BTreeMap<Spanned<String>, Spanned<T>>;

/// A value, or why it is not usable.
pub(super) type ParseResult<T> = Result<T, ValueError>;

pub(super) fn expect_table(value: &DeValue<'_>, form: &str) -> Result<(), ValueError> {
    if value.is_table() {
        return Ok(());
    }
    let what = format!("is {}, not a table", type_name(value));
    Err(ValueError::new(ProblemCode::WrongType, what, format!("write {form}")))
}

/// Why a value is not usable.
#[derive(Debug, PartialEq)]
pub(super) struct ValueError {
    pub(super) code: ProblemCode,
    pub(super) message: String,
    pub(super) help: String,
    /// The wrong part of the value, if not all of it.
    pub(super) span: Option<Range<usize>>,
}

impl ValueError {
    pub(super) fn new(code: ProblemCode, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: what.into(), help: help.into(), span: None }
    }
}

/// The type of a value, in words.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether a path is valid in the request line.
pub(super) fn is_request_path(path: &str) -> bool {
    let plain = |it: char| it.is_ascii_graphic() && !['#', '\\', '"', '<', '>'].contains(&it);
    path.starts_with('/') && path.len() <= 1024 && path.chars().all(plain)
}

/// A text without NUL.
pub(super) fn string(value: &DeValue<'_>) -> ParseResult<String> {
    let Some(text) = value.as_str() else {
        return Err(wrong_type(value, "a string", "write it between quotes"));
    };
    if text.contains('\0') {
        return Err(bad_value("contains a NUL byte", "remove it: system calls do not accept it"));
    }
    Ok(text.to_owned())
}

/// True or false.
pub(super) fn boolean(value: &DeValue<'_>) -> ParseResult<bool> {
    value.as_bool().ok_or_else(|| wrong_type(value, "true or false", "write true or false"))
}

/// One of the known words.
pub(super) fn one_of<const N: usize>(
    known: [&'static str; N],
) -> impl Fn(&DeValue<'_>) -> ParseResult<&'static str> {
    move |value| {
        let list = known.map(|word| format!("\"{word}\"")).join(" or ");
        let Some(text) = value.as_str() else {
            return Err(wrong_type(value, "a string", &format!("write {list}")));
        };
        known.into_iter().find(|word| *word == text).ok_or_else(|| {
            let help = match closest_match(text, &known) {
                Some(suggestion) => format!("did you mean \"{suggestion}\"?"),
                None => format!("write {list}"),
            };
            bad_value(format!("is \"{}\", which is not a known value", shorten(text)), help)
        })
    }
}

/// A time such as "30s".
pub(super) fn duration(value: &DeValue<'_>) -> ParseResult<Duration> {
    const HELP: &str = "write a number and a unit, such as \"250ms\", \"30s\", \"5m\" or \"24h\"";
    let Some(text) = value.as_str() else {
        let help = match value {
            DeValue::Integer(number) => {
                format!("write the unit: \"{}s\" for seconds", shorten(number.as_str()))
            }
            _ => HELP.to_owned(),
        };
        return Err(wrong_type(value, "a time", &help));
    };
    // Longer times are a mistake, and sums of several must not overflow.
    const MAX: Duration = Duration::from_hours(24 * 365);
    match SpanParser::new().parse_unsigned_duration(text) {
        Ok(read) if read <= MAX => Ok(read),
        Ok(_) => Err(bad_value("is longer than a year", HELP)),
        Err(_) => Err(bad_value(format!("is \"{}\", which is not a time", shorten(text)), HELP)),
    }
}

/// A time, or "off".
pub(super) fn duration_or_off(value: &DeValue<'_>) -> ParseResult<Option<Duration>> {
    if value.as_str() == Some("off") { Ok(None) } else { duration(value).map(Some) }
}

/// The error budget of an objective: "99.5%" is 0.005.
pub(super) fn error_budget(value: &DeValue<'_>) -> ParseResult<f64> {
    const HELP: &str = "write the share that must be good, such as \"99.5%\"";
    let Some(text) = value.as_str() else {
        let help = match value {
            DeValue::Float(number) => suggest_percentage(number.as_str()),
            _ => None,
        };
        return Err(wrong_type(value, "a percentage", &help.unwrap_or_else(|| HELP.to_owned())));
    };
    let Some(number) = text.strip_suffix('%') else {
        let help = suggest_percentage(text).unwrap_or_else(|| HELP.to_owned());
        return Err(bad_value(format!("is \"{}\", which has no % sign", shorten(text)), help));
    };
    match number.trim_end().parse::<f64>() {
        // Rounded, because 100 - 99.9 is not 0.1 in binary.
        Ok(good_percent) if (0.0..=100.0).contains(&good_percent) => {
            Ok(((100.0 - good_percent) * PERCENT_PRECISION).round() / (100.0 * PERCENT_PRECISION))
        }
        _ => Err(bad_value(format!("is \"{}\", which is not a percentage", shorten(text)), HELP)),
    }
}

/// A percentage, or "off".
pub(super) fn error_budget_or_off(value: &DeValue<'_>) -> ParseResult<Option<f64>> {
    if value.as_str() == Some("off") { Ok(None) } else { error_budget(value).map(Some) }
}

/// Bytes, such as "64MiB".
pub(super) fn byte_size(value: &DeValue<'_>) -> ParseResult<u64> {
    const HELP: &str = "write a whole number and B, KiB, MiB or GiB, such as \"64MiB\"";
    if value.is_integer() {
        return unsigned_integer(value);
    }
    let Some(text) = value.as_str() else {
        return Err(wrong_type(value, "a size", HELP));
    };
    let digits = text.trim_end_matches(|it: char| !it.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or_default().trim_start();
    let factor: Option<u64> = match unit {
        "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let read = digits.parse::<u64>().ok().zip(factor).and_then(|(n, unit)| n.checked_mul(unit));
    read.ok_or_else(|| bad_value(format!("is \"{}\", which is not a size", shorten(text)), HELP))
}

/// A whole number that is not negative.
pub(super) fn unsigned_integer(value: &DeValue<'_>) -> ParseResult<u64> {
    const HELP: &str = "write a whole number, such as 3";
    let Some(number) = value.as_integer() else {
        return Err(wrong_type(value, "a whole number", HELP));
    };
    u64::from_str_radix(number.as_str(), number.radix()).map_err(|_| {
        let what = format!("is {}, which is negative or too large", shorten(number.as_str()));
        ValueError::new(ProblemCode::OutOfRange, what, HELP)
    })
}

/// Any finite number.
pub(super) fn float(value: &DeValue<'_>) -> ParseResult<f64> {
    const HELP: &str = "write a number, such as 2.5";
    let read = match value {
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Integer(_) => unsigned_integer(value).ok().map(|whole| whole as f64),
        _ => return Err(wrong_type(value, "a number", HELP)),
    };
    read.filter(|number| number.is_finite())
        .ok_or_else(|| ValueError::new(ProblemCode::OutOfRange, "is negative or not finite", HELP))
}

/// An absolute path.
pub(super) fn absolute_path(value: &DeValue<'_>) -> ParseResult<PathBuf> {
    let text = string(value)?;
    if !text.starts_with('/') {
        let what = format!("is \"{}\", which is not absolute", shorten(&text));
        return Err(bad_value(
            what,
            "write the path from the root, such as \"/var/lib/rollbackd\"",
        ));
    }
    Ok(PathBuf::from(text))
}

/// An absolute path that a unix socket can have.
pub(super) fn socket_path(value: &DeValue<'_>) -> ParseResult<PathBuf> {
    let path = absolute_path(value)?;
    check_socket_path(&path)?;
    Ok(path)
}

/// A TCP address.
pub(super) fn socket_address(value: &DeValue<'_>) -> ParseResult<SocketAddr> {
    let text = address_text(value)?;
    text.parse().map_err(|_| not_an_address(&text, ""))
}

/// A TCP address or a unix socket.
pub(super) fn address(value: &DeValue<'_>) -> ParseResult<Address> {
    let text = address_text(value)?;
    let Some(path) = text.strip_prefix("unix:") else {
        let address = text.parse().map(Address::Tcp);
        return address.map_err(|_| not_an_address(&text, " or \"unix:/run/x.sock\""));
    };
    if !path.starts_with('/') {
        return Err(bad_value(
            "has a unix socket whose path is not absolute",
            "write \"unix:/run/x.sock\"",
        ));
    }
    let path = PathBuf::from(path);
    check_socket_path(&path)?;
    Ok(Address::Unix(path))
}

/// A list of texts.
pub(super) fn string_list(value: &DeValue<'_>) -> ParseResult<Vec<Spanned<String>>> {
    let Some(list) = value.as_array() else {
        return Err(wrong_type(value, "a list", "write [\"one\", \"two\"]"));
    };
    list.iter().map(|item| parse_nested(item, "has an item that", string)).collect()
}

/// A table of names with values of one type.
pub(super) fn map_of<T>(
    parse: impl Fn(&DeValue<'_>) -> ParseResult<T>,
) -> impl Fn(&DeValue<'_>) -> ParseResult<BTreeMap<Spanned<String>, Spanned<T>>> {
    move |value| {
        let Some(table) = value.as_table() else {
            return Err(wrong_type(value, "a table", "write { name = \"value\" }"));
        };
        let mut read = BTreeMap::new();
        for (key, value) in table {
            let prefix = format!("has `{}`, which", shorten(key.get_ref()));
            let name = Spanned::new(key.span(), key.get_ref().clone().into_owned());
            read.insert(name, parse_nested(value, &prefix, &parse)?);
        }
        Ok(read)
    }
}

/// Formats a duration as the configuration writes it.
pub fn format_duration(time: Duration) -> String {
    SpanPrinter::new()
        .designator(Designator::Compact)
        .spacing(Spacing::None)
        .unsigned_duration_to_string(&time)
}

/// Formats a share as a percentage.
pub fn format_percent(share: f64) -> String {
    let text = format!("{:.6}", 100.0 * share);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn parse_nested<'v, T>(
    item: &Spanned<DeValue<'v>>,
    prefix: &str,
    parse: impl Fn(&DeValue<'v>) -> ParseResult<T>,
) -> ParseResult<Spanned<T>> {
    parse(item.get_ref()).map(|read| Spanned::new(item.span(), read)).map_err(|error| {
        let message = format!("{prefix} {}", error.message);
        ValueError { message, span: Some(item.span()), ..error }
    })
}

pub(super) fn wrong_type(value: &DeValue<'_>, expected: &str, help: &str) -> ValueError {
    ValueError::new(
        ProblemCode::WrongType,
        format!("is {}, not {expected}", type_name(value)),
        help,
    )
}

pub(super) fn bad_value(what: impl Into<String>, help: impl Into<String>) -> ValueError {
    ValueError::new(ProblemCode::BadValue, what, help)
}

/// Suggests the percentage for a number such as 0.995.
fn suggest_percentage(number: &str) -> Option<String> {
    let share = number.parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share))?;
    let share = if share <= 1.0 { share } else { share / 100.0 };
    Some(format!("write \"{}\"", format_percent(share)))
}

fn check_socket_path(path: &std::path::Path) -> ParseResult<()> {
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_MAX {
        return Ok(());
    }
    let what = format!("has a path of {length} bytes; a socket has at most {SOCKET_PATH_MAX}");
    Err(bad_value(what, "choose a shorter path"))
}

fn address_text(value: &DeValue<'_>) -> ParseResult<String> {
    let help = match value {
        DeValue::Integer(port) => format!("write \"127.0.0.1:{}\"", shorten(port.as_str())),
        _ => "write an IP address and a port, such as \"127.0.0.1:8080\"".to_owned(),
    };
    if value.is_str() { string(value) } else { Err(wrong_type(value, "an address", &help)) }
}

fn not_an_address(text: &str, alternative: &str) -> ValueError {
    let what = format!("is \"{}\", which is not an address", shorten(text));
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let port = port.map_or_else(|| "8080".to_owned(), |port| port.to_string());
    bad_value(
        what,
        format!("write an IP address and a port, such as \"127.0.0.1:{port}\"{alternative}"),
    )
}
