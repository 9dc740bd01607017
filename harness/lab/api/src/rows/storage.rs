//! Volumes, claims and storage classes. Nothing provisions or binds them.

use serde_json::Value;

use crate::meta::{fill, items, map_at, text, without};
use crate::registry::{Admit, ColumnRow};
use crate::status::{Cause, Status};
use crate::table::{age, or_none};

const DEFAULT_CLASS: &str = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";

pub(super) fn default_claim(object: &mut Value) {
    map_at(object, "spec");
    fill(&mut object["spec"], "volumeMode", "Filesystem");
    map_at(object, "status");
    fill(&mut object["status"], "phase", "Pending");
}

/// The default class for a claim that names none (admission plugin DefaultStorageClass).
pub(super) fn admit_claim(admit: &mut Admit<'_>) -> Result<(), Status> {
    let named = admit
        .new
        .pointer("/spec/storageClassName")
        .is_some_and(|name| !name.is_null());
    if admit.old.is_none() && !named {
        let standard = admit
            .state
            .all("storageclasses.storage.k8s.io")
            .find(|class| text(class, DEFAULT_CLASS) == "true")
            .map(|class| class["metadata"]["name"].clone());
        if let Some(name) = standard {
            admit.new["spec"]["storageClassName"] = name;
        }
    }
    Ok(())
}

pub(super) fn validate_claim(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if items(new, "/spec/accessModes").next().is_none() {
        causes.push(Cause::required(
            "spec.accessModes",
            "at least 1 access mode is required",
        ));
    }
    let size = new.pointer("/spec/resources/requests/storage");
    if size.is_none() {
        causes.push(Cause::required("spec.resources[storage]", ""));
    }
    if let Some(old) = old {
        // What binding sets, and what may grow.
        let changeable = ["resources", "volumeName", "volumeAttributesClassName"];
        let rest = |claim: &Value| without(&claim["spec"], &changeable);
        if rest(old) != rest(new) {
            causes.push(Cause::forbidden("spec", "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"));
        }
    }
}

pub(super) fn default_volume(object: &mut Value) {
    map_at(object, "spec");
    let spec = &mut object["spec"];
    fill(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill(spec, "volumeMode", "Filesystem");
    if let Some(path) = spec.get_mut("hostPath") {
        fill(path, "type", "");
    }
    map_at(object, "status");
    fill(&mut object["status"], "phase", "Available");
}

pub(super) fn default_class(object: &mut Value) {
    fill(object, "reclaimPolicy", "Delete");
    fill(object, "volumeBindingMode", "Immediate");
}

pub(super) fn validate_class(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if text(new, "/provisioner").is_empty() {
        causes.push(Cause::required("provisioner", ""));
    }
    for field in ["provisioner", "reclaimPolicy", "parameters"] {
        if old.is_some_and(|old| old.get(field) != new.get(field)) {
            let why = format!("updates to {field} are forbidden.");
            causes.push(Cause::forbidden(field, &why));
        }
    }
}

fn modes(object: &Value, pointer: &str) -> Value {
    let modes: Vec<&str> = items(object, pointer)
        .filter_map(Value::as_str)
        .map(|mode| match mode {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        })
        .collect();
    modes.join(",").into()
}

fn unset(object: &Value) -> Value {
    match text(object, "/spec/volumeAttributesClassName") {
        "" => "<unset>".into(),
        name => name.into(),
    }
}

pub(super) const CLAIM: &[ColumnRow<'static>] = &[
    ("Status", 0, |claim| {
        if claim["metadata"]["deletionTimestamp"].is_null() {
            claim["status"]["phase"].clone()
        } else {
            "Terminating".into()
        }
    }),
    ("Volume", 0, |claim| text(claim, "/spec/volumeName").into()),
    ("Capacity", 0, |claim| {
        text(claim, "/status/capacity/storage").into()
    }),
    ("Access Modes", 0, |claim| {
        modes(claim, "/status/accessModes")
    }),
    ("StorageClass", 0, |claim| {
        text(claim, "/spec/storageClassName").into()
    }),
    ("VolumeAttributesClass", 0, unset),
    ("Age", 0, age),
    ("VolumeMode", 1, |claim| or_none(claim, "/spec/volumeMode")),
];

pub(super) const VOLUME: &[ColumnRow<'static>] = &[
    ("Capacity", 0, |volume| {
        text(volume, "/spec/capacity/storage").into()
    }),
    ("Access Modes", 0, |volume| {
        modes(volume, "/spec/accessModes")
    }),
    ("Reclaim Policy", 0, |volume| {
        volume["spec"]["persistentVolumeReclaimPolicy"].clone()
    }),
    ("Status", 0, |volume| volume["status"]["phase"].clone()),
    ("Claim", 0, |volume| {
        match text(volume, "/spec/claimRef/name") {
            "" => "".into(),
            name => format!("{}/{name}", text(volume, "/spec/claimRef/namespace")).into(),
        }
    }),
    ("StorageClass", 0, |volume| {
        text(volume, "/spec/storageClassName").into()
    }),
    ("VolumeAttributesClass", 0, unset),
    ("Reason", 0, |volume| text(volume, "/status/reason").into()),
    ("Age", 0, age),
    ("VolumeMode", 1, |volume| {
        or_none(volume, "/spec/volumeMode")
    }),
];

pub(super) const CLASS: &[ColumnRow<'static>] = &[
    ("Name", 0, |class| {
        let mark = if text(class, DEFAULT_CLASS) == "true" {
            " (default)"
        } else {
            ""
        };
        format!("{}{mark}", text(class, "/metadata/name")).into()
    }),
    ("Provisioner", 0, |class| class["provisioner"].clone()),
    ("ReclaimPolicy", 0, |class| class["reclaimPolicy"].clone()),
    ("VolumeBindingMode", 0, |class| {
        class["volumeBindingMode"].clone()
    }),
    ("AllowVolumeExpansion", 0, |class| {
        (class.get("allowVolumeExpansion") == Some(&true.into())).into()
    }),
    ("Age", 0, age),
];
