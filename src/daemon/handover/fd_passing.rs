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

use crate::daemon::handover::protocol::{HandoverMessage, Hello, LINE_MAX, ListenerKind, PROTOCOL};

/// Listeners in one message. The kernel takes at most 253.
const FDS_PER_MESSAGE: usize = 64;
/// Listeners in all. More services than that have no place on one host.
const LISTENERS_MAX: usize = 4096;
/// How long the other one may take over each step.
const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// Listeners, and what each is for.
#[derive(Debug, Default)]
pub(in crate::daemon) struct ListenerFds(pub(super) Vec<(ListenerKind, OwnedFd)>);

impl ListenerFds {
    /// Adds the listener of a service.
    pub(in crate::daemon) fn add_service(&mut self, name: &str, listener: OwnedFd) {
        self.0.push((ListenerKind::Service(name.to_owned()), listener));
    }

    /// Adds that of the verbs.
    pub(in crate::daemon) fn add_control(&mut self, listener: OwnedFd) {
        self.0.push((ListenerKind::Control, listener));
    }

    /// Adds that of the metrics.
    pub(in crate::daemon) fn add_metrics(&mut self, listener: OwnedFd) {
        self.0.push((ListenerKind::Metrics, listener));
    }

    /// Sends them, after a greeting. Blocks.
    ///
    /// # Errors
    /// When the other one is gone, or does not read.
    pub(super) fn send(&self, to: &UnixStream, hello: &Hello) -> io::Result<()> {
        to.set_write_timeout(Some(IO_TIMEOUT))?;
        send_message(to, &HandoverMessage::Hello(hello.clone()), &[])?;
        for batch in self.0.chunks(FDS_PER_MESSAGE) {
            let descriptors: Vec<_> = batch.iter().map(|(_, it)| it.as_fd()).collect();
            send_message(to, &HandoverMessage::Listeners(batch.len()), &descriptors)?;
        }
        Ok(())
    }

    /// Receives a greeting, and what comes with it. Blocks.
    ///
    /// # Errors
    /// When the other one is gone or silent, or what it says makes no sense.
    pub(super) fn receive(from: &UnixStream) -> io::Result<(Hello, Self)> {
        from.set_read_timeout(Some(IO_TIMEOUT))?;
        let (mut received, mut descriptors) = (Vec::new(), Vec::new());
        loop {
            receive_chunk(from, &mut received, &mut descriptors)?;
            if let Some(hello) = parse_complete(&received, descriptors.len())? {
                let all = hello.listeners.iter().cloned().zip(descriptors).collect();
                return Ok((hello, Self(all)));
            }
        }
    }
}

/// The greeting, when all that it announces has come.
fn parse_complete(received: &[u8], descriptors: usize) -> io::Result<Option<Hello>> {
    let Some(end) = received.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    let complete = end + 1 == received.len();
    let (mut received_hello, mut expected_fds) = (None, 0_usize);
    for line in received.split_inclusive(|byte| *byte == b'\n') {
        match HandoverMessage::parse(line) {
            Some(HandoverMessage::Hello(hello)) => received_hello = Some(hello),
            Some(HandoverMessage::Listeners(count)) => {
                expected_fds = expected_fds.saturating_add(count)
            }
            _ => (),
        }
    }
    let invalid = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    match received_hello {
        Some(Hello { protocol, version, .. }) if protocol != PROTOCOL => {
            invalid(format!("rollbackd {version} hands over in another way ({protocol})"))
        }
        Some(hello) if hello.listeners.len() > LISTENERS_MAX => {
            invalid("too many listeners".into())
        }
        Some(hello) if complete && hello.listeners.len() <= expected_fds => {
            match hello.listeners.len() == descriptors {
                true => Ok(Some(hello)),
                false => invalid(format!("{descriptors} listeners came with it")),
            }
        }
        _ => Ok(None),
    }
}

fn send_message(
    to: &UnixStream,
    message: &HandoverMessage,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let line = message.to_line()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many listeners in one message"));
    }
    let sent = sendmsg(to, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)?;
    // They went with the first byte.
    let rest = line.get(sent..).unwrap_or_default();
    io::Write::write_all(&mut &*to, rest)
}

fn receive_chunk(
    from: &UnixStream,
    received: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            fds.extend(descriptors);
        }
    }
    received.extend(bytes.iter().take(got.bytes));
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if got.flags.contains(ReturnFlags::CTRUNC) || fds.len() > LISTENERS_MAX {
        return Err(io::Error::other("there are too many open files"));
    }
    if received.len() > LINE_MAX {
        return Err(io::Error::other("it says too much"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn hello(listeners: Vec<ListenerKind>) -> Hello {
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
        for count in [0, 1, FDS_PER_MESSAGE, 3 * FDS_PER_MESSAGE + 7] {
            let all: Vec<_> =
                (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let mut listener_fds = ListenerFds::default();
            for (index, listener) in all.iter().enumerate() {
                listener_fds.add_service(&index.to_string(), listener.try_clone().unwrap().into());
            }
            let names = listener_fds.0.iter().map(|(of, _)| of.clone()).collect();
            let (ours, theirs) = UnixStream::pair().unwrap();
            listener_fds.send(&ours, &hello(names)).unwrap();
            let (_, arrived) = ListenerFds::receive(&theirs).unwrap();
            assert_eq!(arrived.0.len(), count);
            for (index, ((kind, descriptor), sent)) in arrived.0.into_iter().zip(&all).enumerate() {
                assert_eq!(kind, ListenerKind::Service(index.to_string()));
                let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "no program gets it");
                let arrived = TcpListener::from(descriptor);
                assert_eq!(arrived.local_addr().unwrap(), sent.local_addr().unwrap());
            }
        }
    }

    #[test]
    fn malformed_input_and_other_protocol_versions_are_errors() {
        let receive_error = |bytes: &[u8]| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            io::Write::write_all(&mut &ours, bytes).unwrap();
            drop(ours);
            ListenerFds::receive(&theirs).unwrap_err().to_string()
        };
        receive_error(b"");
        receive_error(b"nonsense\n");
        receive_error(&vec![b'x'; LINE_MAX / 2]);
        let line = |hello| HandoverMessage::Hello(hello).to_line().unwrap();
        let other = receive_error(&line(Hello { protocol: 99, ..hello(Vec::new()) }));
        assert!(other.contains("rollbackd 0.1.0 hands over in another way"), "{other}");
        // It promises one, and brings none.
        let mut bytes = line(hello(vec![ListenerKind::Control]));
        bytes.extend(HandoverMessage::Listeners(1).to_line().unwrap());
        assert!(receive_error(&bytes).contains("0 listeners came"));
    }
}
