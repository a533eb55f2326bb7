//! The mail channel: the keys of `[notify.NAME]` with `type = "email"`.

use std::ops::Range;

use lettre::message::Mailbox;
use toml::Spanned;

use crate::config::channel::{EmailSettings, SmtpTls};
use crate::config::hosts::is_host;
use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::secret::SecretSource;
use crate::config::toml_table::TomlTable;
use crate::config::value::{Raw, one_of, string, string_list};

/// The most receivers of one mail.
const RECEIVERS_MAX: usize = 20;

/// The keys of a mail channel.
pub(super) struct RawEmail {
    smtp: Raw<String>,
    tls: Raw<&'static str>,
    user: Raw<String>,
    from: Raw<String>,
    to: Raw<Vec<Spanned<String>>>,
}

/// Reads the keys.
pub(super) fn read(table: &mut TomlTable<'_>, problems: &mut Problems) -> RawEmail {
    RawEmail {
        smtp: table.read("smtp", string, problems),
        tls: table.read("tls", one_of(["starttls", "tls", "off"]), problems),
        user: table.read("user", string, problems),
        from: table.read("from", string, problems),
        to: table.read("to", string_list, problems),
    }
}

impl RawEmail {
    /// The keys that are there, and where.
    pub(super) fn given(&self) -> [(&'static str, Option<Range<usize>>); 5] {
        [
            ("smtp", self.smtp.as_ref().map(Spanned::span)),
            ("tls", self.tls.as_ref().map(Spanned::span)),
            ("user", self.user.as_ref().map(Spanned::span)),
            ("from", self.from.as_ref().map(Spanned::span)),
            ("to", self.to.as_ref().map(Spanned::span)),
        ]
    }
}

/// Checks the keys. None after a problem.
pub(super) fn check(
    raw: &RawEmail,
    channel: Range<usize>,
    password: Option<SecretSource>,
    problems: &mut Problems,
) -> Option<EmailSettings> {
    let server = server(&raw.smtp, channel.clone(), problems);
    let tls = match raw.tls.as_ref().map(|it| *it.get_ref()) {
        Some("tls") => SmtpTls::Tls,
        Some("off") => SmtpTls::Off,
        _ => SmtpTls::StartTls,
    };
    if let (Some((host, _)), SmtpTls::Off, Some(at)) = (&server, tls, &raw.tls)
        && !["localhost", "127.0.0.1", "[::1]"].contains(&host.as_str())
    {
        let what = "mails and a password go unencrypted over the network";
        let help = "write \"starttls\" or \"tls\"; \"off\" is for a server on this host";
        problems.push(Problem::error(ProblemCode::BadValue, at.span(), what).help(help));
    }
    if raw.user.is_some() != password.is_some() {
        let at = raw.user.as_ref().map_or(channel.clone(), Spanned::span);
        let what = "`user` and the secret, its password, belong together";
        let help = "write both, or none for a server without a login";
        problems.push(Problem::error(ProblemCode::Contradiction, at, what).help(help));
    }
    let from = required("from", raw.from.as_ref(), &channel, problems);
    let to = required("to", raw.to.as_ref(), &channel, problems);
    let from = from.and_then(|it| mailbox(it.get_ref(), it.span(), problems));
    let to: Vec<_> = to
        .map(|it| it.get_ref().as_slice())
        .unwrap_or_default()
        .iter()
        .filter_map(|it| mailbox(it.get_ref(), it.span(), problems))
        .collect();
    if let Some(given) = &raw.to
        && !(1..=RECEIVERS_MAX).contains(&given.get_ref().len())
    {
        let what = format!("`to` has {} receivers", given.get_ref().len());
        let help = format!("write 1 to {RECEIVERS_MAX}; use a mailing list for more");
        problems.push(Problem::error(ProblemCode::OutOfRange, given.span(), what).help(help));
    }
    let (server, port) = server?;
    let user = raw.user.as_ref().map(|it| it.get_ref().clone());
    Some(EmailSettings { server, port, tls, user, password, from: from?, to })
}

fn required<'a, T>(
    key: &str,
    raw: Option<&'a Spanned<T>>,
    channel: &Range<usize>,
    problems: &mut Problems,
) -> Option<&'a Spanned<T>> {
    if raw.is_none() {
        let what = format!("`{key}` is missing from a channel of type \"email\"");
        let help = match key {
            "to" => "write to = [\"team@example.org\"]",
            _ => "write from = \"rollbackd <rollbackd@example.org>\"",
        };
        problems.push(Problem::error(ProblemCode::Missing, channel.clone(), what).help(help));
    }
    raw
}

/// Host and port of the server.
fn server(
    raw: &Raw<String>,
    channel: Range<usize>,
    problems: &mut Problems,
) -> Option<(String, u16)> {
    let help = "write smtp = \"mail.example.org:587\"";
    let Some(given) = raw else {
        let what = "`smtp` is missing from a channel of type \"email\"";
        problems.push(Problem::error(ProblemCode::Missing, channel, what).help(help));
        return None;
    };
    let parts = given.get_ref().rsplit_once(':');
    let parsed = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parsed.filter(|(host, port)| is_host(host) && *port > 0) {
        Some((host, port)) => Some((host.to_owned(), port)),
        None => {
            let what =
                format!("`smtp` is \"{}\", which is no host and port", shorten(given.get_ref()));
            problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
            None
        }
    }
}

fn mailbox(text: &str, at: Range<usize>, problems: &mut Problems) -> Option<String> {
    if text.parse::<Mailbox>().is_ok() && !text.contains(char::is_control) {
        return Some(text.to_owned());
    }
    let what = format!("\"{}\" is not a mail address", shorten(text));
    let help = "write \"team@example.org\" or \"Team <team@example.org>\"";
    problems.push(Problem::error(ProblemCode::BadValue, at, what).help(help));
    None
}
