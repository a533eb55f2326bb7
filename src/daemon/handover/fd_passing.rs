//! Passes listeners to the next daemon over a Unix socket (SCM_RIGHTS). Received file descriptors are
//! close-on-exec, so no program that starts at the same time inherits them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::daemon::handover::protocol::{HandoverMessage, Hello, LINE_MAX, ListenerKind, PROTOCOL};
use crate::systemd::inherited_listeners::InheritedListeners;

/// Listeners in one message. The kernel permits at most 253.
const FDS_PER_MESSAGE: usize = 64;
/// Listeners in total, more than the services of one host.
const LISTENERS_MAX: usize = 4096;
/// How long the other daemon may take for each step.
const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// Listeners, and what each is for, in order.
#[derive(Debug, Default)]
pub(super) struct ListenerFds(pub(super) Vec<(ListenerKind, OwnedFd)>);

impl ListenerFds {
    /// Adds the listener of a service.
    pub(super) fn add_service(&mut self, name: &str, listener: OwnedFd) {
        self.0.push((ListenerKind::Service(name.to_owned()), listener));
    }

    /// Adds the listener of the control API.
    pub(super) fn add_control(&mut self, listener: OwnedFd) {
        self.0.push((ListenerKind::Control, listener));
    }

    /// Adds the listener of the metrics.
    pub(super) fn add_metrics(&mut self, listener: OwnedFd) {
        self.0.push((ListenerKind::Metrics, listener));
    }

    /// Adds the listener of the status page.
    pub(super) fn add_page(&mut self, listener: OwnedFd) {
        self.0.push((ListenerKind::Page, listener));
    }

    /// Sends them after [`Hello`]. Blocks.
    ///
    /// # Errors
    /// When the other daemon is gone, or does not read.
    pub(super) fn send(&self, to: &UnixStream, hello: &Hello) -> io::Result<()> {
        to.set_write_timeout(Some(IO_TIMEOUT))?;
        send_message(to, &HandoverMessage::Hello(hello.clone()), &[])?;
        for batch in self.0.chunks(FDS_PER_MESSAGE) {
            let descriptors: Vec<_> = batch.iter().map(|(_, it)| it.as_fd()).collect();
            send_message(to, &HandoverMessage::Listeners(batch.len()), &descriptors)?;
        }
        Ok(())
    }

    /// Receives [`Hello`] and the listeners. Blocks.
    ///
    /// # Errors
    /// When the other daemon is gone or silent, or its message is invalid.
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

impl TryFrom<ListenerFds> for InheritedListeners {
    type Error = io::Error;

    fn try_from(listener_fds: ListenerFds) -> io::Result<Self> {
        let mut inherited = Self::default();
        for (kind, listener) in listener_fds.0 {
            match kind {
                ListenerKind::Service(name) => {
                    inherited.add_service(&name, TcpListener::from(listener))?
                }
                ListenerKind::Control => inherited.add_control(listener)?,
                ListenerKind::Metrics => inherited.add_metrics(listener)?,
                ListenerKind::Page => inherited.add_page(listener),
            }
        }
        Ok(inherited)
    }
}

/// [`Hello`], once all listeners that it announces have arrived.
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
        Some(Hello { protocol, version, .. }) if protocol != PROTOCOL => invalid(format!(
            "rollbackd {version} uses handover protocol {protocol}, this one {PROTOCOL}"
        )),
        Some(hello) if hello.listeners.len() > LISTENERS_MAX => {
            invalid(format!("more than {LISTENERS_MAX} listeners"))
        }
        Some(hello) if complete && hello.listeners.len() <= expected_fds => {
            match hello.listeners.len() == descriptors {
                true => Ok(Some(hello)),
                false => invalid(format!(
                    "{descriptors} listeners arrived instead of {}",
                    hello.listeners.len()
                )),
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
    // The file descriptors went with the first byte.
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
        return Err(io::Error::other("too many open files"));
    }
    if received.len() > LINE_MAX {
        return Err(io::Error::other(format!("the message is longer than {LINE_MAX} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "no child inherits it");
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
        assert!(other.contains("rollbackd 0.1.0 uses handover protocol 99"), "{other}");
        // It announces one, and sends none.
        let mut bytes = line(hello(vec![ListenerKind::Control]));
        bytes.extend(HandoverMessage::Listeners(1).to_line().unwrap());
        assert!(receive_error(&bytes).contains("0 listeners arrived instead of 1"));
    }
}
