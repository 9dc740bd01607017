//! From errors to kinds.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::Instant;

use strata_probe::{Failure, FailureKind, Stage};

/// The failure that an operation on a socket is.
pub(crate) fn of_io(stage: Stage, doing: &str, error: &io::Error) -> Failure {
    Failure::new(
        kind_of_io(error),
        stage,
        format!("{doing}: {}", chain(error)),
    )
}

/// Nobody said anything before the deadline: a name server, if that was whom we were waiting for.
pub(crate) fn of_timeout(stage: Stage, deadline: Instant, after_ms: u64) -> Failure {
    let kind = match stage {
        Stage::Resolve => FailureKind::NameServerTimedOut,
        _ => FailureKind::TimedOut,
    };
    Failure::new(kind, stage, format!("nothing after {after_ms} ms")).late_by(deadline.elapsed())
}

/// The kind of an error of the operating system, or of what speaks through its interface.
pub(crate) fn kind_of_io(error: &io::Error) -> FailureKind {
    if error
        .get_ref()
        .is_some_and(|inner| find::<rustls::Error>(inner).is_some())
    {
        return FailureKind::Tls;
    }
    if error.raw_os_error() == Some(libc::EMSGSIZE) {
        return FailureKind::MessageTooLong;
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => FailureKind::Refused,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => FailureKind::Reset,
        ErrorKind::UnexpectedEof => FailureKind::Closed,
        ErrorKind::TimedOut => FailureKind::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => FailureKind::Unreachable,
        _ => FailureKind::Other,
    }
}

/// The error of a type in a chain of causes.
pub(crate) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An io::Error's source is the source of what it wraps; what it wraps is not on the way.
        if let Some(found) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| find::<E>(inner))
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error with its causes, outermost first.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_have_their_kinds() {
        for (errno, kind) in [
            (libc::ECONNREFUSED, FailureKind::Refused),
            (libc::ECONNRESET, FailureKind::Reset),
            (libc::EPIPE, FailureKind::Reset),
            (libc::ETIMEDOUT, FailureKind::TimedOut),
            (libc::EHOSTUNREACH, FailureKind::Unreachable),
            (libc::ENETUNREACH, FailureKind::Unreachable),
            (libc::EMSGSIZE, FailureKind::MessageTooLong),
            (libc::EADDRNOTAVAIL, FailureKind::Other),
        ] {
            assert_eq!(kind_of_io(&io::Error::from_raw_os_error(errno)), kind);
        }
    }

    #[test]
    fn tls_is_found_inside_an_io_error() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        let error = io::Error::new(ErrorKind::InvalidData, alert);
        assert_eq!(kind_of_io(&error), FailureKind::Tls);
    }

    #[test]
    fn silence_while_resolving_is_the_name_servers() {
        let kind = |stage| of_timeout(stage, Instant::now(), 1).kind;
        assert_eq!(kind(Stage::Resolve), FailureKind::NameServerTimedOut);
        assert_eq!(kind(Stage::Connect), FailureKind::TimedOut);
    }
}
