//! When the next of a burst is due.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How much of a delay is made up for: timers are late by a millisecond or two, and a rate should
/// not suffer from that; a stall of seconds must not turn into a volley.
const SLACK: Duration = Duration::from_millis(10);

/// Gives out the beginnings of a burst's exchanges, to any number of workers.
#[derive(Debug)]
pub(crate) struct Pace {
    period: Duration,
    next: Cell<Instant>,
    left: Cell<u64>,
    end: Option<Instant>,
    begun: Cell<u64>,
}

impl Pace {
    /// `count` exchanges, or as many as fit into `duration`; at most `rate` a second.
    pub(crate) fn new(count: u64, duration: Option<Duration>, rate: Option<u32>) -> Self {
        let now = Instant::now();
        Self {
            period: rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1)),
            next: Cell::new(now),
            left: Cell::new(if duration.is_some() { u64::MAX } else { count }),
            end: duration.map(|duration| now + duration),
            begun: Cell::new(0),
        }
    }

    /// Waits until the next exchange may begin and gives its number; `None` when the burst is over.
    pub(crate) async fn next(&self) -> Option<u64> {
        let now = Instant::now();
        let at = self.claim(now)?;
        if at > now {
            tokio::time::sleep_until(at.into()).await;
        }
        let sequence = self.begun.get();
        self.begun.set(sequence + 1);
        Some(sequence)
    }

    fn claim(&self, now: Instant) -> Option<Instant> {
        let left = self.left.get().checked_sub(1)?;
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let at = self.next.get().max(earliest);
        if self.end.is_some_and(|end| at.max(now) >= end) {
            return None;
        }
        self.left.set(left);
        self.next.set(at + self.period);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_not_made_up_for() {
        let pace = Pace::new(1000, None, Some(100));
        let start = pace.next.get();
        assert_eq!(pace.claim(start), Some(start));
        let late = start + Duration::from_secs(5);
        // Ten milliseconds are one period: two at once, then one a period.
        let claims: Vec<_> = (0..3).filter_map(|_| pace.claim(late)).collect();
        let ten = Duration::from_millis(10);
        assert_eq!(claims, [late - ten, late, late + ten]);
    }

    #[test]
    fn a_burst_ends_by_count_or_by_time() {
        let counted = Pace::new(2, None, None);
        let now = Instant::now();
        assert_eq!((0..5).filter_map(|_| counted.claim(now)).count(), 2);
        let timed = Pace::new(1, Some(Duration::from_secs(1)), Some(10));
        let start = timed.next.get();
        assert_eq!((0..50).filter_map(|_| timed.claim(start)).count(), 10);
    }
}
