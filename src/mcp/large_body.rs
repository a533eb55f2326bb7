//! What makes a large body unreadable for common servers, found as it passes: it is not kept, so that
//! [`super::request_check`] cannot read it.

/// Digits in a row that no number of a sane client has; Python refuses 4,300.
const DIGITS_MAX: usize = 1_000;

/// The state of the check inside a body.
#[derive(Debug, Default)]
pub(crate) struct LargeBodyCheck {
    digits: usize,
    /// The start of a character that the next piece completes.
    partial: Vec<u8>,
    is_invalid: bool,
}

impl LargeBodyCheck {
    /// Reads the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digits = if byte.is_ascii_digit() { self.digits + 1 } else { 0 };
            self.is_invalid |= self.digits > DIGITS_MAX;
        }
        let mut text = std::mem::take(&mut self.partial);
        let text = if text.is_empty() {
            bytes
        } else {
            text.extend_from_slice(bytes);
            text.as_slice()
        };
        if let Err(error) = std::str::from_utf8(text) {
            self.is_invalid |= error.error_len().is_some();
            self.partial = text.get(error.valid_up_to()..).unwrap_or_default().to_vec();
            // At most three bytes are an incomplete character.
            self.partial.truncate(3);
        }
    }

    /// Whether it holds a number that is too long, or is not UTF-8.
    pub(crate) fn is_invalid(&self) -> bool {
        self.is_invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_no_difference() {
        let check = |text: &[u8], size: usize| {
            let mut check = LargeBodyCheck::default();
            text.chunks(size).for_each(|piece| check.feed(piece));
            check.is_invalid()
        };
        let digits = "7".repeat(5_000);
        for size in [1, 2, 3, 700, 100_000] {
            assert!(!check("{\"a\":\"\u{e4}\u{20ac}\u{1f600}\"}".repeat(50).as_bytes(), size));
            assert!(check(digits.as_bytes(), size));
            assert!(check(b"{\"a\":\"\xe4\"}", size));
        }
    }
}
