//! Text that did not come from the daemon: shortened, without control characters, secrets masked.
//!
//! A release chooses what it prints, names and answers. Its text reaches documents, terminals and
//! chats, so it passes through here first; each renderer then escapes it for its own syntax.

/// Longest name of a call, in characters.
const NAME_MAX: usize = 80;
/// What stands in place of a secret.
const MASK: &str = "[masked]";
/// Shortest word that counts as a token by its look alone.
const TOKEN_MIN: usize = 20;
/// Shortest word of hexadecimal digits that is masked.
const HEX_MIN: usize = 16;
/// Words of secrets: the value after one of them is masked.
const SECRET_WORDS: [&str; 14] = [
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "authorization",
    "bearer",
    "basic",
    "credential",
    "private_key",
    "cookie",
];
/// How known tokens begin: GitHub, GitLab, Slack, OpenAI and Anthropic, Stripe, AWS, Google, npm, JWT.
const TOKEN_PREFIXES: [&str; 18] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xapp-",
    "sk-",
    "pk_",
    "rk_",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
];

/// A name of a call, on one line.
pub fn clean_name(name: &str) -> String {
    plain(name, NAME_MAX)
}

/// A call as a document names it: the method, and the tool, prompt or resource. A client chooses the name:
/// the address of a resource can have a secret in it, and so can what is no name of a tool.
pub fn clean_call(method: &str, name: &str) -> String {
    let method = clean_name(method);
    if name.is_empty() {
        return method;
    }
    let is_identifier = name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    let has_digit = name.contains(|c: char| c.is_ascii_digit());
    // A tool may be called `sk-learn-train-model`; a token has digits.
    let is_plain = is_identifier && !(has_digit && is_token(name));
    let name = if is_plain { clean_name(name) } else { clean_text(name, NAME_MAX) };
    format!("{method} {name}")
}

/// A text of a release on one line of at most `max` characters, secrets masked.
pub fn clean_text(text: &str, max: usize) -> String {
    // A secret that the limit would cut in two is no longer recognised: mask first.
    let bounded = plain(text, max.saturating_mul(4));
    plain(&mask(&bounded), max)
}

/// Escapes a text for HTML content and quoted attributes.
pub fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' => (),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Removes control characters, bidirectional overrides and zero-width characters, and shortens.
fn plain(text: &str, max: usize) -> String {
    let mut plain = String::new();
    let mut count = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let c = match c {
            '\n' | '\r' | '\t' => ' ',
            '\u{1b}' => {
                skip_escape(&mut rest);
                continue;
            }
            c if is_invisible(c) => continue,
            c => c,
        };
        if count == max {
            plain.push_str("...");
            break;
        }
        count += 1;
        plain.push(c);
    }
    plain.trim().to_owned()
}

/// Skips the rest of a control sequence: `ESC [ ... letter`.
fn skip_escape(rest: &mut std::str::Chars<'_>) {
    let mut ahead = rest.clone();
    if ahead.next() != Some('[') {
        return;
    }
    for _ in 0..32 {
        match ahead.next() {
            Some(c) if c.is_ascii_digit() || ";?=><".contains(c) => (),
            Some(c) if c.is_ascii_alphabetic() => {
                *rest = ahead;
                return;
            }
            _ => return,
        }
    }
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Replaces secrets: values after a word such as `password`, tokens by their form, mail addresses, IP
/// addresses, user information in URLs, and long words of hexadecimal or random characters.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut mask_next = 0_u8;
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let space = piece.get(word.len()..).unwrap_or_default();
        if word.is_empty() {
            masked.push_str(space);
            continue;
        }
        let shown = mask_word(word, mask_next > 0);
        mask_next = if opens_secret(word) { 1 } else { mask_next.saturating_sub(1) };
        if is_scheme(word) && shown == word {
            // `Authorization: Bearer VALUE` has two words before its value.
            mask_next = 1;
        }
        masked.push_str(&shown);
        masked.push_str(space);
    }
    masked
}

fn is_scheme(word: &str) -> bool {
    let lower = word.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
    matches!(lower.as_str(), "bearer" | "basic" | "digest")
}

/// Whether the word ends like `password:` or `--token`, so that the next word is its value.
fn opens_secret(word: &str) -> bool {
    let ends_open = word.ends_with([':', '=']) || word.starts_with("--") || is_scheme(word);
    let lower = word.to_ascii_lowercase();
    ends_open && SECRET_WORDS.iter().any(|it| lower.contains(it))
}

fn mask_word(word: &str, is_value: bool) -> String {
    if is_value && !is_scheme(word) {
        return MASK.to_owned();
    }
    let mut masked = String::new();
    let mut rest = word;
    // `key=VALUE`, `"key":"VALUE"`, lists and quotes: each part by itself.
    while !rest.is_empty() {
        let end = rest.find(is_separator).unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        let is_secret_value = ends_with_secret_name(&masked, word);
        masked.push_str(&if !part.is_empty() && is_secret_value {
            MASK.to_owned()
        } else {
            mask_part(part)
        });
        let mut chars = tail.chars();
        masked.extend(chars.next());
        rest = chars.as_str();
    }
    masked
}

fn is_separator(c: char) -> bool {
    "=\"'`,;()[]{}<>|&?".contains(c)
}

/// Whether the text before a value in the same word names a secret: `password=`, `"token":"`.
fn ends_with_secret_name(before: &str, word: &str) -> bool {
    if word.len() < 3 {
        return false;
    }
    let name = before.trim_end_matches(|c: char| "\"':= ".contains(c));
    if name.len() == before.len() {
        return false;
    }
    let start = name.rfind(|c: char| is_separator(c) || c == ':').map_or(0, |at| at + 1);
    let name = name.get(start..).unwrap_or_default().to_ascii_lowercase();
    SECRET_WORDS.iter().any(|it| name.contains(it))
}

/// Masks one part of a word: without quotes, brackets and `=`.
fn mask_part(part: &str) -> String {
    if let Some((name, value)) = part.split_once(':') {
        let lower = name.to_ascii_lowercase();
        if !value.is_empty() && SECRET_WORDS.iter().any(|it| lower.ends_with(it)) {
            return format!("{name}:{MASK}");
        }
    }
    if let Some(masked) = mask_url(part) {
        return masked;
    }
    let core = part.trim_matches(|c: char| ".:!/".contains(c));
    if is_mail(core) || is_token(core) || is_ip(core) {
        return part.replace(core, MASK);
    }
    part.to_owned()
}

/// `scheme://user:password@host/...` without the user information, its path masked part by part.
fn mask_url(part: &str) -> Option<String> {
    let (scheme, rest) = part.split_once("://")?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let user = if host.len() == authority.len() { "" } else { "[masked]@" };
    let segments: Vec<_> = path
        .split('/')
        .map(|it| if is_token(it) || is_mail(it) { MASK.to_owned() } else { it.to_owned() })
        .collect();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let host = if is_ip(name) { host.replace(name, MASK) } else { host.to_owned() };
    Some(format!("{scheme}://{user}{host}{}", segments.join("/")))
}

fn is_mail(word: &str) -> bool {
    word.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && host.starts_with(char::is_alphanumeric)
            && host.contains('.')
            // An instance of a systemd unit; no domain ends like that.
            && !host.ends_with(".service")
            && host.chars().all(|c| c.is_alphanumeric() || ".-".contains(c))
    })
}

/// Addresses of the host itself tell nothing, and are often what a reader needs.
fn is_ip(word: &str) -> bool {
    let (word, _) = word.rsplit_once(':').filter(|(it, _)| it.contains('.')).unwrap_or((word, ""));
    let is_v4 = word.split('.').count() == 4
        && word.split('.').all(|it| it.parse::<u8>().is_ok() && it.len() <= 3);
    let is_v6 = word.matches(':').count() >= 2
        && word.len() >= 6
        && word.chars().all(|c| c.is_ascii_hexdigit() || c == ':')
        && word.chars().any(|c| c.is_ascii_hexdigit());
    let is_time =
        word.matches(':').count() == 2 && word.chars().all(|c| c.is_ascii_digit() || c == ':');
    (is_v4 && !word.starts_with("127.") && word != "0.0.0.0") || (is_v6 && !is_time)
}

fn is_token(word: &str) -> bool {
    let is_word_char = |c: char| c.is_ascii_alphanumeric() || "-_.+/~".contains(c);
    if !word.chars().all(is_word_char) {
        return false;
    }
    if TOKEN_PREFIXES.iter().any(|it| word.starts_with(it)) && word.len() >= TOKEN_MIN - 4 {
        return true;
    }
    let is_hex = word.len() >= HEX_MIN
        && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
        && word.chars().any(|c| c.is_ascii_digit());
    is_hex || (word.len() >= TOKEN_MIN && looks_random(word))
}

/// Upper case, lower case and digits, mixed as no identifier mixes them.
fn looks_random(word: &str) -> bool {
    // A path or a dotted name is no token, unless one of its parts is.
    let longest = word.split(['/', '.']).max_by_key(|it| it.len()).unwrap_or_default();
    if longest.len() < TOKEN_MIN {
        return false;
    }
    let class = |c: char| match c {
        c if c.is_ascii_digit() => 0,
        c if c.is_ascii_uppercase() => 1,
        c if c.is_ascii_lowercase() => 2,
        _ => 3,
    };
    let classes: Vec<_> = longest.chars().map(class).collect();
    // Identifiers have underscores and hyphens between their words.
    let is_change = |(a, b): &(&i32, &i32)| a != b && **a != 3 && **b != 3;
    let changes = classes.iter().zip(classes.iter().skip(1)).filter(is_change).count();
    let has = |it| classes.contains(&it);
    has(0) && (has(1) || has(2)) && changes * 4 >= longest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: a text and the secret in it.
    const SEEDED: &str = include_str!("secrets.txt");

    #[test]
    fn no_seeded_secret_survives() {
        let mut count = 0;
        for line in SEEDED.lines().filter(|it| !it.starts_with('#') && !it.is_empty()) {
            let (secret, text) = line.split_once(" :: ").unwrap();
            assert!(text.contains(secret), "{line}");
            let masked = clean_text(text, 300);
            assert!(!masked.contains(secret), "{text:?} -> {masked:?}");
            count += 1;
        }
        assert!(count >= 50, "{count} secrets");
    }

    #[test]
    fn plain_words_stay() {
        for text in [
            "KeyError: 'region' in /opt/weather/v2/server.py line 214",
            "tool forecast: missing required argument `city`",
            "connection to 127.0.0.1:5432 refused at 10:25:24",
            "upstream timed out after 30000 ms (attempt 3 of 5)",
            "https://example.org/docs/errors?code=12 returned 503",
            "java.lang.NullPointerException at com.example.weather.ForecastController",
            "JSON-RPC error -32603: Internal error",
            "the token bucket is empty",
            "Error executing tool get_weather_forecast_v2_hourly",
            "mcp-weather@blue.service: Main process exited, code=exited, status=1/FAILURE",
            "/etc/systemd/system/mcp-weather@.service: MemoryMax=64M",
        ] {
            assert_eq!(clean_text(text, 300), text);
        }
    }

    #[test]
    fn the_address_of_a_resource_is_masked_and_a_tool_is_not() {
        assert_eq!(
            clean_call("tools/call", "get_weather_forecast_v2"),
            "tools/call get_weather_forecast_v2"
        );
        assert_eq!(
            clean_call("tools/call", "sk-learn-train-model"),
            "tools/call sk-learn-train-model"
        );
        assert_eq!(clean_call("ping", ""), "ping");
        for (uri, secret) in [
            ("https://ada:hunter2@host/x", "hunter2"),
            ("file:///x?token=abcdefgh1234", "abcdefgh1234"),
            ("mailto:ada@example.org", "ada@example.org"),
        ] {
            let call = clean_call("resources/read", uri);
            assert!(!call.contains(secret), "{call}");
        }
    }

    #[test]
    fn control_characters_do_not_pass() {
        assert_eq!(clean_text("\u{1b}[31mred\u{1b}[0m\r\nnext\u{202e}\u{0}x", 300), "red  nextx");
        assert_eq!(clean_text(&"x ".repeat(400), 20), "x x x x x x x x x x ...");
        assert_eq!(clean_text("\u{1b}[", 10), "[");
    }
}
