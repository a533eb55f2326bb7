//! How one value is written: durations, shares, sizes, addresses, lists.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter};
use toml::Spanned;
use toml::de::DeValue;

use super::problem::Code;
use super::settings::Address;
use super::table::{Complaint, brief, kind_of, near};

/// What a kernel takes as the path of a unix socket, in bytes.
const SOCKET_PATH_MAX: usize = 107;
/// Decimals of a percentage that still count.
const PERCENT_STEPS: f64 = 1e7;

type Read<T> = Result<T, Complaint>;

/// Any text without NUL.
pub(super) fn text(value: &DeValue<'_>) -> Read<String> {
    let Some(text) = value.as_str() else {
        return Err(wrong(value, "a string", "write it between quotes"));
    };
    if text.contains('\0') {
        return Err(bad("holds a NUL", "leave it out: no system call takes it"));
    }
    Ok(text.to_owned())
}

/// One of a few words.
pub(super) fn choice<const N: usize>(
    known: [&'static str; N],
) -> impl Fn(&DeValue<'_>) -> Read<&'static str> {
    move |value| {
        let list = known.map(|word| format!("\"{word}\"")).join(" or ");
        let Some(written) = value.as_str() else {
            return Err(wrong(value, "a string", &format!("write {list}")));
        };
        known.into_iter().find(|word| *word == written).ok_or_else(|| {
            let help = match near(written, &known) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("write {list}"),
            };
            bad(format!("is \"{}\", which is not known", brief(written)), help)
        })
    }
}

/// A time such as "30s".
pub(super) fn duration(value: &DeValue<'_>) -> Read<Duration> {
    const HELP: &str = "write a number and a unit, such as \"250ms\", \"30s\", \"5m\" or \"24h\"";
    let Some(written) = value.as_str() else {
        let help = match value {
            DeValue::Integer(number) => {
                format!("write the unit: \"{}s\" for seconds", brief(number.as_str()))
            }
            _ => HELP.to_owned(),
        };
        return Err(wrong(value, "a time", &help));
    };
    // Years of a bake are a slip, and the sums below must not overflow.
    const MAX: Duration = Duration::from_hours(24 * 365);
    match SpanParser::new().parse_unsigned_duration(written) {
        Ok(read) if read <= MAX => Ok(read),
        Ok(_) => Err(bad("is longer than a year", HELP)),
        Err(_) => Err(bad(format!("is \"{}\", which is not a time", brief(written)), HELP)),
    }
}

/// The share that may be bad: "99.5%" makes 0.005.
pub(super) fn budget(value: &DeValue<'_>) -> Read<f64> {
    const HELP: &str = "write the share that must be good, such as \"99.5%\"";
    let Some(written) = value.as_str() else {
        let help = match value {
            DeValue::Float(number) => percent_of(number.as_str()),
            _ => None,
        };
        return Err(wrong(value, "a percentage", &help.unwrap_or_else(|| HELP.to_owned())));
    };
    let Some(number) = written.strip_suffix('%') else {
        let help = percent_of(written).unwrap_or_else(|| HELP.to_owned());
        return Err(bad(format!("is \"{}\", which has no % sign", brief(written)), help));
    };
    match number.trim_end().parse::<f64>() {
        // Rounded, because 100 - 99.9 is not 0.1 in binary.
        Ok(good) if (0.0..=100.0).contains(&good) => {
            Ok(((100.0 - good) * PERCENT_STEPS).round() / (100.0 * PERCENT_STEPS))
        }
        _ => Err(bad(format!("is \"{}\", which is not a percentage", brief(written)), HELP)),
    }
}

/// A percentage, or "off".
pub(super) fn budget_or_off(value: &DeValue<'_>) -> Read<Option<f64>> {
    if value.as_str() == Some("off") { Ok(None) } else { budget(value).map(Some) }
}

/// Bytes, such as "64MiB".
pub(super) fn size(value: &DeValue<'_>) -> Read<u64> {
    const HELP: &str = "write a whole number and B, KiB, MiB or GiB, such as \"64MiB\"";
    if value.is_integer() {
        return whole(value);
    }
    let Some(written) = value.as_str() else {
        return Err(wrong(value, "a size", HELP));
    };
    let digits = written.trim_end_matches(|it: char| !it.is_ascii_digit());
    let unit = written.get(digits.len()..).unwrap_or_default().trim_start();
    let factor: Option<u64> = match unit {
        "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let read = digits.parse::<u64>().ok().zip(factor).and_then(|(n, unit)| n.checked_mul(unit));
    read.ok_or_else(|| bad(format!("is \"{}\", which is not a size", brief(written)), HELP))
}

/// A whole number that is not negative.
pub(super) fn whole(value: &DeValue<'_>) -> Read<u64> {
    const HELP: &str = "write a whole number, such as 3";
    let Some(number) = value.as_integer() else {
        return Err(wrong(value, "a whole number", HELP));
    };
    u64::from_str_radix(number.as_str(), number.radix()).map_err(|_| {
        let what = format!("is {}, which is negative or far too large", brief(number.as_str()));
        Complaint::new(Code::OutOfRange, what, HELP)
    })
}

/// Any finite number.
pub(super) fn number(value: &DeValue<'_>) -> Read<f64> {
    const HELP: &str = "write a number, such as 2.5";
    let read = match value {
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Integer(_) => whole(value).ok().map(|whole| whole as f64),
        _ => return Err(wrong(value, "a number", HELP)),
    };
    read.filter(|number| number.is_finite())
        .ok_or_else(|| Complaint::new(Code::OutOfRange, "is not a usable number", HELP))
}

/// A path from the root.
pub(super) fn path(value: &DeValue<'_>) -> Read<PathBuf> {
    let written = text(value)?;
    if !written.starts_with('/') {
        let what = format!("is \"{}\", which depends on where the daemon starts", brief(&written));
        return Err(bad(what, "write the whole path, from the first /"));
    }
    Ok(PathBuf::from(written))
}

/// A path from the root that a unix socket can have.
pub(super) fn socket(value: &DeValue<'_>) -> Read<PathBuf> {
    let path = path(value)?;
    fits(&path)?;
    Ok(path)
}

/// A TCP address.
pub(super) fn tcp(value: &DeValue<'_>) -> Read<SocketAddr> {
    let written = expect_address(value)?;
    written.parse().map_err(|_| not_an_address(&written, ""))
}

/// A TCP address or a unix socket.
pub(super) fn address(value: &DeValue<'_>) -> Read<Address> {
    let written = expect_address(value)?;
    let Some(path) = written.strip_prefix("unix:") else {
        let address = written.parse().map(Address::Tcp);
        return address.map_err(|_| not_an_address(&written, " or \"unix:/run/x.sock\""));
    };
    if !path.starts_with('/') {
        return Err(bad("has a unix socket without a whole path", "write \"unix:/run/x.sock\""));
    }
    let path = PathBuf::from(path);
    fits(&path)?;
    Ok(Address::Unix(path))
}

/// A list of texts.
pub(super) fn texts(value: &DeValue<'_>) -> Read<Vec<Spanned<String>>> {
    let Some(list) = value.as_array() else {
        return Err(wrong(value, "a list", "write [\"one\", \"two\"]"));
    };
    list.iter().map(|item| within(item, "has an item that", text)).collect()
}

/// Names, each with a value of one kind.
pub(super) fn named<T>(
    kind: impl Fn(&DeValue<'_>) -> Read<T>,
) -> impl Fn(&DeValue<'_>) -> Read<BTreeMap<Spanned<String>, Spanned<T>>> {
    move |value| {
        let Some(table) = value.as_table() else {
            return Err(wrong(value, "a table", "write { name = \"value\" }"));
        };
        let mut read = BTreeMap::new();
        for (key, value) in table {
            let prefix = format!("has `{}`, which", brief(key.get_ref()));
            let name = Spanned::new(key.span(), key.get_ref().clone().into_owned());
            read.insert(name, within(value, &prefix, &kind)?);
        }
        Ok(read)
    }
}

/// A time as an operator writes it.
pub(super) fn say(time: Duration) -> String {
    SpanPrinter::new()
        .designator(Designator::Compact)
        .spacing(Spacing::None)
        .unsigned_duration_to_string(&time)
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.6}", 100.0 * share);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn within<'v, T>(
    item: &Spanned<DeValue<'v>>,
    prefix: &str,
    kind: impl Fn(&DeValue<'v>) -> Read<T>,
) -> Read<Spanned<T>> {
    kind(item.get_ref()).map(|read| Spanned::new(item.span(), read)).map_err(|complaint| {
        let what = format!("{prefix} {}", complaint.what);
        Complaint { what, at: Some(item.span()), ..complaint }
    })
}

fn wrong(value: &DeValue<'_>, wanted: &str, help: &str) -> Complaint {
    Complaint::new(Code::WrongType, format!("is {}, not {wanted}", kind_of(value)), help)
}

fn bad(what: impl Into<String>, help: impl Into<String>) -> Complaint {
    Complaint::new(Code::BadValue, what, help)
}

/// What somebody meant who wrote 0.995.
fn percent_of(number: &str) -> Option<String> {
    let share = number.parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share))?;
    let share = if share <= 1.0 { share } else { share / 100.0 };
    Some(format!("write \"{}\"", percent(share)))
}

fn fits(path: &std::path::Path) -> Read<()> {
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_MAX {
        return Ok(());
    }
    let what = format!("has a path of {length} bytes; a socket can have {SOCKET_PATH_MAX}");
    Err(bad(what, "choose a shorter path"))
}

fn expect_address(value: &DeValue<'_>) -> Read<String> {
    let help = match value {
        DeValue::Integer(port) => format!("write \"127.0.0.1:{}\"", brief(port.as_str())),
        _ => "write an IP address and a port, such as \"127.0.0.1:8080\"".to_owned(),
    };
    if value.is_str() { text(value) } else { Err(wrong(value, "an address", &help)) }
}

fn not_an_address(written: &str, or: &str) -> Complaint {
    let what = format!("is \"{}\", which is not an address", brief(written));
    let port = written.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let port = port.map_or_else(|| "8080".to_owned(), |port| port.to_string());
    bad(what, format!("write an IP address and a port, such as \"127.0.0.1:{port}\"{or}"))
}
