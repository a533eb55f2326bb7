//! What two daemons say to each other, one line each: JSON, so that each may know words that the
//! other does not. Such a word is passed over.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::proxy::{Change, Ways};

/// The version of what is said here, in which order. Another one is not understood.
pub(super) const PROTOCOL: u32 = 1;
/// The longest line; a session takes up to a quarter of it.
pub(super) const LINE_MAX: usize = 256 * 1024;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// The old one: who it is, and what it passes on.
    Hello(Hello),
    /// The old one: so many listeners come with this line.
    Listeners(usize),
    /// The new one: nothing is known that stands against it.
    Prepared {
        /// Its process.
        pid: u32,
        /// Its version.
        version: String,
    },
    /// The new one: it can not take over, and why.
    Failed(String),
    /// The old one: it lets go of the state.
    Yours,
    /// The new one: it is in charge.
    Ready,
    /// The old one: the service manager was told.
    Main,
    /// The old one: what the proxy of a service has to know.
    Change(String, Change),
    /// The new one: where the requests of a service go now.
    Ways(String, Ways),
    /// The old one: nothing of it is left.
    Gone,
}

/// What the old one says first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// [`PROTOCOL`], as it knows it.
    pub protocol: u32,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Its state folder.
    pub state_dir: PathBuf,
    /// Where its control socket lies.
    pub control: PathBuf,
    /// What it passes on, in order.
    pub listeners: Vec<Of>,
}

/// What a listener is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Of {
    /// Clients of a service.
    Service(String),
    /// The verbs.
    Control,
    /// Collectors of metrics.
    Metrics,
}

impl Word {
    /// Reads a line. `None`: it is not known here.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        if line.len() > LINE_MAX {
            return None;
        }
        serde_json::from_slice(line).ok()
    }

    /// The line, with its end.
    pub(super) fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// The end on which one listens.
#[derive(Debug)]
pub(super) struct Ear {
    from: BufReader<OwnedReadHalf>,
    begun: Vec<u8>,
}

/// The end on which one speaks.
#[derive(Debug)]
pub(super) struct Mouth(OwnedWriteHalf);

/// Both ends of a channel, from now on for lines only.
///
/// # Errors
/// When the stream can not be used by the runtime.
pub(super) fn talk(stream: std::os::unix::net::UnixStream) -> io::Result<(Ear, Mouth)> {
    stream.set_nonblocking(true)?;
    let (from, to) = UnixStream::from_std(stream)?.into_split();
    Ok((Ear { from: BufReader::new(from), begun: Vec::new() }, Mouth(to)))
}

impl Ear {
    /// The next word that is known; `None` at the end. May be dropped and asked again.
    ///
    /// # Errors
    /// When a line is too long, or the other end broke.
    pub(super) async fn next(&mut self) -> io::Result<Option<Word>> {
        loop {
            let bytes = self.from.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(bytes.len(), |end| end + 1);
            self.begun.extend(bytes.iter().take(taken));
            self.from.consume(taken);
            if self.begun.len() > LINE_MAX {
                return Err(io::Error::other("a line is too long"));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.begun);
                if let Some(word) = Word::parse(&line) {
                    return Ok(Some(word));
                }
            }
        }
    }
}

impl Mouth {
    /// Says a word.
    ///
    /// # Errors
    /// When the other end is gone.
    pub(super) async fn say(&mut self, word: &Word) -> io::Result<()> {
        self.0.write_all(&word.line()?).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/each.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/lines.rs"));

    fn examples() -> Vec<(&'static str, Word)> {
        let listeners = one_of_each!(Of;
            Of::Service(_) => "" Of::Service("weather".to_owned());
            Of::Control => "" Of::Control;
            Of::Metrics => "" Of::Metrics;
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
        one_of_each!(Word;
            Word::Hello(_) => "hello" Word::Hello(hello);
            Word::Listeners(_) => "listeners" Word::Listeners(3);
            Word::Prepared { .. } =>
                "prepared" Word::Prepared { pid: 8, version: "0.2.0".to_owned() };
            Word::Failed(_) => "failed" Word::Failed("no\nway".to_owned());
            Word::Yours => "yours" Word::Yours;
            Word::Ready => "ready" Word::Ready;
            Word::Main => "main" Word::Main;
            Word::Change(..) => "change" Word::Change(weather(), change);
            Word::Ways(..) => "ways" Word::Ways(weather(), Ways::default());
            Word::Gone => "gone" Word::Gone;
        )
    }

    fn words() -> Vec<Word> {
        examples().into_iter().map(|(_, word)| word).collect()
    }

    fn text(words: &[Word]) -> Vec<u8> {
        words.iter().flat_map(|word| word.line().unwrap()).collect()
    }

    /// What is heard of these bytes when they come in pieces.
    fn heard(bytes: &[u8], piece: usize) -> (Vec<Word>, io::Result<()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let (_, mut mouth) = talk(ours).unwrap();
            let (mut ear, _) = talk(theirs).unwrap();
            let send = async {
                for piece in bytes.chunks(piece) {
                    // Who listened may have had enough.
                    if mouth.0.write_all(piece).await.is_err() {
                        break;
                    }
                }
                drop(mouth);
            };
            let hear = async {
                let mut all = Vec::new();
                loop {
                    match ear.next().await {
                        Ok(Some(word)) => all.push(word),
                        Ok(None) => return (all, Ok(())),
                        Err(error) => {
                            drop(ear);
                            return (all, Err(error));
                        }
                    }
                }
            };
            tokio::join!(send, hear).1
        })
    }

    #[test]
    fn what_is_said_is_heard_however_it_is_cut() {
        let text = text(&words());
        for piece in [1, 2, 7, 1024] {
            let (all, end) = heard(&text, piece);
            end.unwrap();
            assert_eq!(format!("{all:?}"), format!("{:?}", words()), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let mut bytes = b"{\"news\":{\"of\":\"tomorrow\"}}\n\n[]\n\xff\xfe\n".to_vec();
        bytes.extend(text(&[Word::Yours]));
        bytes.extend(b"\"yours\"");
        let (all, end) = heard(&bytes, 5);
        end.unwrap();
        assert!(matches!(all.as_slice(), [Word::Yours]), "the last one has no end: {all:?}");
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let (all, end) = heard(&vec![b'x'; LINE_MAX + 2], 4096);
        assert!(all.is_empty());
        end.unwrap_err();
    }

    #[test]
    fn every_word_is_as_it_was() {
        hold("handover.txt", &lines(&examples()));
    }

    #[test]
    fn old_words_are_still_read() {
        still_read(
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/0.1.0/handover.txt")),
            &examples(),
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
            assert!(Word::parse(line.as_bytes()).is_some(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_said_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Word::parse(&bytes);
        }

        #[test]
        fn a_word_with_anything_changed_is_a_word_or_nothing(at in any::<prop::sample::Index>(), to: u8) {
            for word in words() {
                let mut line = word.line().unwrap();
                let at = at.index(line.len());
                line[at] = to;
                let _ = Word::parse(&line);
            }
        }
    }
}
