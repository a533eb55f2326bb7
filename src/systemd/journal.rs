//! Reads the messages of a unit from the journal, through `journalctl`.

use std::io;

use serde_json::Value;

use crate::systemd::child::read_output;

/// The newest messages that are read.
const MESSAGES_MAX: &str = "--lines=10000";
/// Bytes that are read, those of the newest messages.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What a unit, and systemd about it, wrote between two times (seconds since 1970), the oldest first.
///
/// # Errors
/// `journalctl` cannot be started, or takes longer than five seconds.
pub async fn read_journal(
    unit: &str,
    since: Option<u64>,
    until: Option<u64>,
) -> io::Result<Vec<String>> {
    let fixed = ["--output=json", "--output-fields=MESSAGE", "--quiet", "--no-pager"];
    let mut arguments = fixed.map(str::to_owned).to_vec();
    // The limit of bytes cuts off the end, which has to be the oldest.
    arguments.extend([MESSAGES_MAX, "--reverse"].map(str::to_owned));
    arguments.extend(["--unit".to_owned(), unit.to_owned()]);
    arguments.extend(since.map(|it| format!("--since=@{it}")));
    arguments.extend(until.map(|it| format!("--until=@{it}")));
    let bytes = read_output("journalctl", arguments, BYTES_MAX).await?;
    Ok(parse(&bytes))
}

/// The lines of the messages, the oldest first. The newest message is the first of `bytes`. journalctl
/// writes a message with control characters as an array of bytes.
fn parse(bytes: &[u8]) -> Vec<String> {
    let objects = bytes.split(|it| *it == b'\n').filter_map(|it| serde_json::from_slice(it).ok());
    let text = |object: Value| match object.get("MESSAGE")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let byte = |it: &Value| u8::try_from(it.as_u64()?).ok();
            let bytes: Option<Vec<_>> = bytes.iter().map(byte).collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    };
    let texts: Vec<_> = objects.filter_map(text).collect();
    texts.iter().rev().flat_map(|it| it.lines()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_text_or_bytes_and_the_oldest_that_is_cut_is_left_out() {
        let bytes = b"{\"MESSAGE\":\"two\\nthree\",\"X\":\"y\"}\n{\"MESSAGE\":[27,91,109,255]}\n{\"MESSAGE\":null}\n{\"MESSAGE\":\"cu";
        assert_eq!(parse(bytes), ["\u{1b}[m\u{fffd}", "two", "three"]);
    }
}
