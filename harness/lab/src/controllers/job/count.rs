//! Which pods of a Job have succeeded and failed, each counted once.
//!
//! Start from [`count`]. A pod that has ended is noted as uncounted in the status, then it loses its
//! finalizer, then it is counted and the note goes (Kubernetes'
//! `trackJobStatusAndRemoveFinalizers`). Of an indexed Job the indexes that succeeded are kept
//! instead.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::pods;

/// What a pod carries until it is counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The label and annotation with the index of a pod.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Whether a pod is not yet counted.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|one| one == FINALIZER)
}

/// Whether pods have numbers, each of which is to succeed.
pub(super) fn is_indexed(job: &Job) -> bool {
    let mode = job
        .spec
        .as_ref()
        .and_then(|spec| spec.completion_mode.as_deref());
    mode == Some("Indexed")
}

/// The index of a pod.
pub(super) fn index_of(pod: &Pod) -> Option<u32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// The numbers in a text such as `0-2,5`.
pub(super) fn parse(text: &str, below: u32) -> BTreeSet<u32> {
    let ranges = text.split(',').filter_map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some(from.parse::<u32>().ok()?..=to.parse::<u32>().ok()?)
    });
    ranges
        .flat_map(|range| *range.start()..=(*range.end()).min(below.saturating_sub(1)))
        .filter(|number| *number < below)
        .collect()
}

/// Numbers as a text such as `0-2,5`.
pub(super) fn write(numbers: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let texts = ranges.into_iter().map(|(from, to)| match to - from {
        0 => from.to_string(),
        // Two numbers in a row are no range.
        1 => format!("{from},{to}"),
        _ => format!("{from}-{to}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// How many pods have ended, and how.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Of an indexed Job, the indexes that succeeded.
    pub(super) indexes: BTreeSet<u32>,
    /// Whether pods are noted that are not counted yet.
    pub(super) pending: bool,
    /// Pods to let go of, once the status is written.
    pub(super) release: Vec<Arc<Pod>>,
}

/// Counts in the status what has ended. `all`: pods that are being deleted have failed, too.
pub(super) fn count(job: &Job, pods: &[Arc<Pod>], all: bool, status: &mut JobStatus) -> Count {
    let spec = job.spec.clone().unwrap_or_default();
    let below = spec.completions.and_then(|count| u32::try_from(count).ok());
    let below = below.unwrap_or(0);
    let indexed = is_indexed(job);
    let mut count = Count {
        indexes: parse(
            status.completed_indexes.as_deref().unwrap_or_default(),
            below,
        ),
        ..Count::default()
    };
    let mut notes = status.uncounted_terminated_pods.take().unwrap_or_default();
    let tracked = |uid: &String| {
        pods.iter()
            .any(|pod| pod.metadata.uid.as_ref() == Some(uid) && is_tracked(pod))
    };
    let settle = |notes: &mut Vec<String>, counter: &mut Option<i32>| {
        let before = notes.len();
        notes.retain(tracked);
        let counted = i32::try_from(before - notes.len()).unwrap_or(i32::MAX);
        let sum = counter.unwrap_or(0).saturating_add(counted);
        *counter = Some(sum).filter(|sum| *sum > 0);
    };
    let mut succeeded = notes.succeeded.take().unwrap_or_default();
    let mut failed = notes.failed.take().unwrap_or_default();
    settle(&mut succeeded, &mut status.succeeded);
    settle(&mut failed, &mut status.failed);
    for pod in pods.iter().filter(|pod| is_tracked(pod)) {
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let Some(uid) = pod.uid() else { continue };
        let known = succeeded.contains(&uid) || failed.contains(&uid);
        let in_range = index_of(pod).is_some_and(|index| index < below);
        match pods::phase(pod) {
            _ if known || indexed && !in_range => {}
            "Succeeded" if indexed => count.indexes.extend(index_of(pod)),
            "Succeeded" => succeeded.push(uid),
            "Failed" => failed.push(uid),
            _ if deleted && all => failed.push(uid),
            _ => continue,
        }
        if pods::is_terminal(pod) || deleted {
            count.release.push(pod.clone());
        }
    }
    if indexed {
        let number = i32::try_from(count.indexes.len()).unwrap_or(i32::MAX);
        status.succeeded = Some(number).filter(|number| *number > 0);
        status.completed_indexes = Some(write(&count.indexes)).filter(|text| !text.is_empty());
    }
    let sum = |counter: Option<i32>, notes: &[String]| {
        let noted = i32::try_from(notes.len()).unwrap_or(i32::MAX);
        counter.unwrap_or(0).saturating_add(noted)
    };
    count.succeeded = sum(status.succeeded, &succeeded);
    count.failed = sum(status.failed, &failed);
    count.pending = !succeeded.is_empty() || !failed.is_empty();
    notes.succeeded = Some(succeeded).filter(|list| !list.is_empty());
    notes.failed = Some(failed).filter(|list| !list.is_empty());
    status.uncounted_terminated_pods = Some(notes);
    count
}
