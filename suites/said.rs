//! What came of an exchange, in the short words that tables compare and reports print.
//!
//! Start from [`said`] for HTTP and [`who`] for everything else. Rule: a failure keeps its kind, so
//! that nothing which merely went wrong is taken for the refusal that was expected.

use strata::wire::{Answer, BriefReply, Failure, FailureKind, Reply, TcpReply, UdpReply};
use strata::{NotPassed, Outcome};

/// `200 by alpha`, `404`, `refused`.
pub(crate) fn said(reply: &Reply) -> String {
    answer(reply.error.as_ref(), reply.status, reply.pod())
}

/// [`said`] of one of many.
pub(crate) fn brief(reply: &BriefReply) -> String {
    answer(reply.error.as_ref(), reply.status, reply.pod.as_deref())
}

fn answer(error: Option<&Failure>, status: Option<u16>, pod: Option<&str>) -> String {
    match (error, status, pod) {
        (Some(error), _, _) => error.kind.to_string(),
        (None, Some(status), Some(pod)) => format!("{status} by {pod}"),
        (None, Some(status), None) => status.to_string(),
        (None, None, _) => "no answer".to_owned(),
    }
}

/// The status, or the kind of the failure: for answers that any of several pods may give.
pub(crate) fn status(reply: &Reply) -> String {
    match (&reply.error, reply.status) {
        (Some(error), _) => error.kind.to_string(),
        (None, Some(status)) => status.to_string(),
        (None, None) => "no answer".to_owned(),
    }
}

/// The pod that answered, or the kind of the failure.
pub(crate) fn who(error: Option<&Failure>, answer: Option<&Answer>) -> String {
    match (error, answer) {
        (Some(error), _) => error.kind.to_string(),
        (None, Some(answer)) => answer.pod.clone(),
        (None, None) => "no probe".to_owned(),
    }
}

/// [`who`] of the one connection that was asked for.
pub(crate) fn tcp(replies: &[TcpReply]) -> String {
    replies.first().map_or_else(nothing, |reply| {
        who(reply.error.as_ref(), reply.answer.as_ref())
    })
}

/// [`who`] of the one datagram that was asked for.
pub(crate) fn udp(replies: &[UdpReply]) -> String {
    replies.first().map_or_else(nothing, |reply| {
        who(reply.error.as_ref(), reply.answer.as_ref())
    })
}

/// What a failure looks like when nobody is there: packets that are lost, or told to be so.
pub(crate) fn nobody(word: String) -> String {
    let lost = [FailureKind::TimedOut, FailureKind::Unreachable];
    match lost.iter().any(|kind| kind.to_string() == word) {
        true => "nobody".to_owned(),
        false => word,
    }
}

/// What a failure looks like at a port that nobody serves: refused, or lost as above.
pub(crate) fn closed(word: String) -> String {
    match nobody(word) {
        word if word == FailureKind::Refused.to_string() || word == "nobody" => "none".to_owned(),
        word => word,
    }
}

/// [`closed`] at an address that is no Service's, or not that port of it. Packets to it may leave the cluster
/// by the nodes' own routes, and whoever answers them there is no pod of the Service.
pub(crate) fn unserved(reply: &Reply) -> String {
    match (reply.pod(), reply.status) {
        (None, Some(_)) => "none".to_owned(),
        _ => closed(said(reply)),
    }
}

/// The cause that diagnosis names for a broken expectation; for checks of the diagnosis itself.
pub(crate) fn cause(outcome: &Outcome) -> String {
    match outcome {
        Err(NotPassed::Failed(finding)) => finding
            .cause()
            .map_or_else(|| "no cause".to_owned(), ToString::to_string),
        Err(NotPassed::NoVerdict(no_verdict)) => no_verdict.because().to_owned(),
        Ok(()) => "nothing is broken".to_owned(),
    }
}

fn nothing() -> String {
    "no reply".to_owned()
}
