//! Listeners on their way from one daemon to the next, over a socket: nothing is left open for a
//! program that is started in the same moment.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::word::{Hello, LINE_MAX, Of, PROTOCOL, Word};

/// Listeners in one message. The kernel takes at most 253.
const BATCH: usize = 64;
/// Listeners in all. More services than that have no place on one host.
const LISTENERS_MAX: usize = 4096;
/// How long the other one may take over each step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listeners, and what each is for.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Parcel(pub(super) Vec<(Of, OwnedFd)>);

impl Parcel {
    /// Adds the listener of a service.
    pub(in crate::daemon) fn service(&mut self, name: &str, listener: OwnedFd) {
        self.0.push((Of::Service(name.to_owned()), listener));
    }

    /// Adds that of the verbs.
    pub(in crate::daemon) fn control(&mut self, listener: OwnedFd) {
        self.0.push((Of::Control, listener));
    }

    /// Adds that of the metrics.
    pub(in crate::daemon) fn metrics(&mut self, listener: OwnedFd) {
        self.0.push((Of::Metrics, listener));
    }

    /// Sends them, after a greeting. Blocks.
    ///
    /// # Errors
    /// When the other one is gone, or does not read.
    pub(super) fn send(&self, to: &UnixStream, hello: &Hello) -> io::Result<()> {
        to.set_write_timeout(Some(PATIENCE))?;
        send(to, &Word::Hello(hello.clone()), &[])?;
        for batch in self.0.chunks(BATCH) {
            let descriptors: Vec<_> = batch.iter().map(|(_, it)| it.as_fd()).collect();
            send(to, &Word::Listeners(batch.len()), &descriptors)?;
        }
        Ok(())
    }

    /// Receives a greeting, and what comes with it. Blocks.
    ///
    /// # Errors
    /// When the other one is gone or silent, or what it says makes no sense.
    pub(super) fn receive(from: &UnixStream) -> io::Result<(Hello, Self)> {
        from.set_read_timeout(Some(PATIENCE))?;
        let (mut heard, mut descriptors) = (Vec::new(), Vec::new());
        loop {
            take(from, &mut heard, &mut descriptors)?;
            if let Some(hello) = whole(&heard, descriptors.len())? {
                let all = hello.listeners.iter().cloned().zip(descriptors).collect();
                return Ok((hello, Self(all)));
            }
        }
    }
}

/// The greeting, when all that it announces has come.
fn whole(heard: &[u8], descriptors: usize) -> io::Result<Option<Hello>> {
    let Some(end) = heard.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    let complete = end + 1 == heard.len();
    let (mut greeting, mut announced) = (None, 0_usize);
    for line in heard.split_inclusive(|byte| *byte == b'\n') {
        match Word::parse(line) {
            Some(Word::Hello(hello)) => greeting = Some(hello),
            Some(Word::Listeners(count)) => announced = announced.saturating_add(count),
            _ => (),
        }
    }
    let wrong = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    match greeting {
        Some(Hello { protocol, version, .. }) if protocol != PROTOCOL => {
            wrong(format!("rollbackd {version} hands over in another way ({protocol})"))
        }
        Some(hello) if hello.listeners.len() > LISTENERS_MAX => wrong("too many listeners".into()),
        Some(hello) if complete && hello.listeners.len() <= announced => {
            match hello.listeners.len() == descriptors {
                true => Ok(Some(hello)),
                false => wrong(format!("{descriptors} listeners came with it")),
            }
        }
        _ => Ok(None),
    }
}

fn send(to: &UnixStream, word: &Word, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let line = word.line()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many listeners in one message"));
    }
    let sent = sendmsg(to, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)?;
    // They went with the first byte.
    let rest = line.get(sent..).unwrap_or_default();
    io::Write::write_all(&mut &*to, rest)
}

fn take(from: &UnixStream, heard: &mut Vec<u8>, into: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            into.extend(descriptors);
        }
    }
    heard.extend(bytes.iter().take(got.bytes));
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if got.flags.contains(ReturnFlags::CTRUNC) || into.len() > LISTENERS_MAX {
        return Err(io::Error::other("there are too many open files"));
    }
    if heard.len() > LINE_MAX {
        return Err(io::Error::other("it says too much"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn hello(listeners: Vec<Of>) -> Hello {
        Hello {
            protocol: PROTOCOL,
            pid: 1,
            version: "0.1.0".to_owned(),
            state_dir: "/state".into(),
            control: "/control".into(),
            listeners,
        }
    }

    #[test]
    fn listeners_arrive_in_order_and_are_the_same() {
        for count in [0, 1, BATCH, 3 * BATCH + 7] {
            let all: Vec<_> =
                (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let mut parcel = Parcel::default();
            for (index, listener) in all.iter().enumerate() {
                parcel.service(&index.to_string(), listener.try_clone().unwrap().into());
            }
            let names = parcel.0.iter().map(|(of, _)| of.clone()).collect();
            let (ours, theirs) = UnixStream::pair().unwrap();
            parcel.send(&ours, &hello(names)).unwrap();
            let (_, arrived) = Parcel::receive(&theirs).unwrap();
            assert_eq!(arrived.0.len(), count);
            for (index, ((of, descriptor), sent)) in arrived.0.into_iter().zip(&all).enumerate() {
                assert_eq!(of, Of::Service(index.to_string()));
                let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "no program gets it");
                let arrived = TcpListener::from(descriptor);
                assert_eq!(arrived.local_addr().unwrap(), sent.local_addr().unwrap());
            }
        }
    }

    #[test]
    fn nonsense_and_another_protocol_are_errors() {
        let say = |bytes: &[u8]| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            io::Write::write_all(&mut &ours, bytes).unwrap();
            drop(ours);
            Parcel::receive(&theirs).unwrap_err().to_string()
        };
        say(b"");
        say(b"nonsense\n");
        say(&vec![b'x'; LINE_MAX / 2]);
        let line = |hello| Word::Hello(hello).line().unwrap();
        let other = say(&line(Hello { protocol: 99, ..hello(Vec::new()) }));
        assert!(other.contains("rollbackd 0.1.0 hands over in another way"), "{other}");
        // It promises one, and brings none.
        let mut bytes = line(hello(vec![Of::Control]));
        bytes.extend(Word::Listeners(1).line().unwrap());
        assert!(say(&bytes).contains("0 listeners came"));
    }
}
