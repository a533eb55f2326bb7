//! The messages between two daemons: one line of JSON each. A daemon skips messages that it does not
//! know, so that the two may be different versions.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::proxy::{ReplicationMessage, RoutesSnapshot};

/// The version of the messages and their order. Daemons with different versions cannot hand over.
pub(super) const PROTOCOL: u32 = 1;
/// The maximum of a line; a session takes up to a quarter of it.
pub(super) const LINE_MAX: usize = 256 * 1024;

/// One message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HandoverMessage {
    /// Old daemon: its identity, and what it passes.
    Hello(Hello),
    /// Old daemon: this many listeners come with this line.
    Listeners(usize),
    /// New daemon: it can take over.
    Prepared {
        /// Its process id.
        pid: u32,
        /// Its version.
        version: String,
    },
    /// New daemon: it cannot take over, and why.
    Failed(String),
    /// Old daemon: the state is unlocked.
    #[serde(rename = "yours")]
    StateReleased,
    /// New daemon: it is active.
    Ready,
    /// Old daemon: the service manager knows the new main pid.
    #[serde(rename = "main")]
    MainPidSet,
    /// Old daemon: a change in the proxy of a service.
    #[serde(rename = "change")]
    ProxyChange(String, ReplicationMessage),
    /// New daemon: the present routes of a service.
    #[serde(rename = "ways")]
    RoutesChanged(String, RoutesSnapshot),
    /// Old daemon: all its requests are done.
    #[serde(rename = "gone")]
    Done,
}

/// The first message of the old daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Its [`PROTOCOL`].
    pub protocol: u32,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Its state directory.
    pub state_dir: PathBuf,
    /// The path of its control socket.
    pub control: PathBuf,
    /// The listeners that it passes, in order.
    pub listeners: Vec<ListenerKind>,
}

/// What a listener is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ListenerKind {
    /// The public address of a service.
    Service(String),
    /// The control API.
    Control,
    /// The metrics.
    Metrics,
    /// The status page.
    Page,
}

impl HandoverMessage {
    /// Parses a line. `None`: the message is unknown.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        if line.len() > LINE_MAX {
            return None;
        }
        serde_json::from_slice(line).ok()
    }

    /// The line, with its line feed.
    pub(super) fn to_line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// A daemon as it appears in logs and timelines.
pub(super) fn describe(pid: u32, version: &str) -> String {
    format!("process {pid} (version {version})")
}

/// The receiving half of a channel.
#[derive(Debug)]
pub(super) struct MessageReader {
    stream: BufReader<OwnedReadHalf>,
    partial_line: Vec<u8>,
}

/// The sending half of a channel.
#[derive(Debug)]
pub(super) struct MessageWriter(OwnedWriteHalf);

/// Splits a channel into its halves, from now on for lines only.
///
/// # Errors
/// When the runtime cannot use the stream.
pub(super) fn split(
    stream: std::os::unix::net::UnixStream,
) -> io::Result<(MessageReader, MessageWriter)> {
    stream.set_nonblocking(true)?;
    let (read_half, write_half) = UnixStream::from_std(stream)?.into_split();
    Ok((
        MessageReader { stream: BufReader::new(read_half), partial_line: Vec::new() },
        MessageWriter(write_half),
    ))
}

impl MessageReader {
    /// The next known message; `None` at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// When a line is too long, or the connection fails.
    pub(super) async fn next(&mut self) -> io::Result<Option<HandoverMessage>> {
        loop {
            let bytes = self.stream.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let consumed = end.map_or(bytes.len(), |end| end + 1);
            self.partial_line.extend(bytes.iter().take(consumed));
            self.stream.consume(consumed);
            if self.partial_line.len() > LINE_MAX {
                return Err(io::Error::other(format!("a message is longer than {LINE_MAX} bytes")));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.partial_line);
                if let Some(message) = HandoverMessage::parse(&line) {
                    return Ok(Some(message));
                }
            }
        }
    }
}

impl MessageWriter {
    /// Sends a message.
    ///
    /// # Errors
    /// When the other daemon is gone.
    pub(super) async fn send(&mut self, message: &HandoverMessage) -> io::Result<()> {
        self.0.write_all(&message.to_line()?).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/each.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/lines.rs"));

    fn examples() -> Vec<(&'static str, HandoverMessage)> {
        let listeners = one_of_each!(ListenerKind;
            ListenerKind::Service(_) => "" ListenerKind::Service("weather".to_owned());
            ListenerKind::Control => "" ListenerKind::Control;
            ListenerKind::Metrics => "" ListenerKind::Metrics;
            ListenerKind::Page => "" ListenerKind::Page;
        );
        let hello = Hello {
            protocol: PROTOCOL,
            pid: 7,
            version: "0.1.0".to_owned(),
            state_dir: "/var/lib/rollbackd".into(),
            control: "/run/rollbackd/control.sock".into(),
            listeners: listeners.into_iter().map(|(_, of)| of).collect(),
        };
        let session = r#"{"session":{"k":"AAAAAAAAAAAAAAAAAAAAAA"}}"#;
        let change = serde_json::from_str(session).unwrap();
        let weather = || "weather".to_owned();
        one_of_each!(HandoverMessage;
            HandoverMessage::Hello(_) => "hello" HandoverMessage::Hello(hello);
            HandoverMessage::Listeners(_) => "listeners" HandoverMessage::Listeners(3);
            HandoverMessage::Prepared { .. } =>
                "prepared" HandoverMessage::Prepared { pid: 8, version: "0.2.0".to_owned() };
            HandoverMessage::Failed(_) => "failed" HandoverMessage::Failed("no\nway".to_owned());
            HandoverMessage::StateReleased => "yours" HandoverMessage::StateReleased;
            HandoverMessage::Ready => "ready" HandoverMessage::Ready;
            HandoverMessage::MainPidSet => "main" HandoverMessage::MainPidSet;
            HandoverMessage::ProxyChange(..) => "change" HandoverMessage::ProxyChange(weather(), change);
            HandoverMessage::RoutesChanged(..) => "ways" HandoverMessage::RoutesChanged(weather(), RoutesSnapshot::default());
            HandoverMessage::Done => "gone" HandoverMessage::Done;
        )
    }

    fn messages() -> Vec<HandoverMessage> {
        examples().into_iter().map(|(_, message)| message).collect()
    }

    fn encode_all(messages: &[HandoverMessage]) -> Vec<u8> {
        messages.iter().flat_map(|message| message.to_line().unwrap()).collect()
    }

    /// The messages in these bytes when they arrive in pieces.
    fn receive_in_pieces(bytes: &[u8], piece: usize) -> (Vec<HandoverMessage>, io::Result<()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let (_, mut writer) = split(ours).unwrap();
            let (mut reader, _) = split(theirs).unwrap();
            let send = async {
                for piece in bytes.chunks(piece) {
                    // The reader may have stopped after an error.
                    if writer.0.write_all(piece).await.is_err() {
                        break;
                    }
                }
                drop(writer);
            };
            let receive = async {
                let mut all = Vec::new();
                loop {
                    match reader.next().await {
                        Ok(Some(message)) => all.push(message),
                        Ok(None) => return (all, Ok(())),
                        Err(error) => {
                            drop(reader);
                            return (all, Err(error));
                        }
                    }
                }
            };
            tokio::join!(send, receive).1
        })
    }

    #[test]
    fn messages_survive_any_fragmentation() {
        let encoded = encode_all(&messages());
        for piece in [1, 2, 7, 1024] {
            let (all, end) = receive_in_pieces(&encoded, piece);
            end.unwrap();
            assert_eq!(format!("{all:?}"), format!("{:?}", messages()), "pieces of {piece}");
        }
    }

    #[test]
    fn unknown_messages_are_skipped() {
        let mut bytes = b"{\"news\":{\"of\":\"tomorrow\"}}\n\n[]\n\xff\xfe\n".to_vec();
        bytes.extend(encode_all(&[HandoverMessage::StateReleased]));
        bytes.extend(b"\"yours\"");
        let (all, end) = receive_in_pieces(&bytes, 5);
        end.unwrap();
        assert!(
            matches!(all.as_slice(), [HandoverMessage::StateReleased]),
            "the last one has no line feed: {all:?}"
        );
    }

    #[test]
    fn an_overlong_line_is_an_error() {
        let (all, end) = receive_in_pieces(&vec![b'x'; LINE_MAX + 2], 4096);
        assert!(all.is_empty());
        end.unwrap_err();
    }

    #[test]
    fn every_word_is_as_it_was() {
        hold("handover.txt", &lines(&examples()));
    }

    #[test]
    fn old_words_are_still_read() {
        let mut examples = examples();
        for (_, example) in &mut examples {
            if let HandoverMessage::Hello(hello) = example {
                // 0.1.0 had no status page.
                hello.listeners.retain(|it| *it != ListenerKind::Page);
            }
        }
        still_read(
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/0.1.0/handover.txt")),
            &examples,
        );
    }

    #[test]
    fn every_line_of_an_old_conversation_is_known() {
        let all = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/wire/0.1.0/handover-conversation.txt"
        ));
        for line in all.lines() {
            let (_, line) = line.split_once("  ").unwrap();
            let line = line.replace("NOW", "1700000000000");
            assert!(HandoverMessage::parse(line.as_bytes()).is_some(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = HandoverMessage::parse(&bytes);
        }

        #[test]
        fn a_corrupted_message_does_not_panic(at in any::<prop::sample::Index>(), to: u8) {
            for message in messages() {
                let mut line = message.to_line().unwrap();
                let at = at.index(line.len());
                line[at] = to;
                let _ = HandoverMessage::parse(&line);
            }
        }
    }
}
