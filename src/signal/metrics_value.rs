//! The numbers and the quoted texts of a metrics page.

use std::borrow::Cow;

/// A number as Go reads it, without hexadecimal digits and underscores. One that is too large for a
/// float is none.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_word = unsigned.starts_with(|it: char| it.is_ascii_alphabetic());
    let is_nan = unsigned.eq_ignore_ascii_case("nan");
    if is_nan && unsigned.len() < text.len() {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| is_word || number.is_finite())
}

/// The text between two quotes. An escape that is none stays as it is.
pub(super) fn unescape(quoted: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    let text = std::str::from_utf8(quoted).map_err(|_| "a label is not UTF-8")?;
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => plain.push('\n'),
            Some(escaped @ ('\\' | '"')) => plain.push(escaped),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    Ok(Cow::Owned(plain))
}
