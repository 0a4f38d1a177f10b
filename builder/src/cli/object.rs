//! What the store holds, as `kiln du` and `kiln prune` print it: BuildKit's columns (reference/engine.md 3.8).

use crate::progress::track::bytes;
use crate::time::{ago, rfc3339_millis};
use cache::object::{Kind, ObjectId};
use cache::usage::Object;
use serde_json::json;
use std::io::{self, Write};

/// How objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    /// All that is known, in blocks.
    Verbose,
    /// An object a line.
    Json,
}

/// As it is written in filters.
pub fn full_id(id: &ObjectId) -> String {
    match id.kind {
        Kind::Blob => format!("sha256:{}", id.name),
        _ => id.name.clone(),
    }
}

fn short_id(id: &ObjectId) -> String {
    let full = full_id(id);
    match (id.kind, full.split_once('/')) {
        (Kind::CacheMount, Some((key, number))) => format!("{}/{number}", &key[..key.len().min(22)]),
        _ => full.chars().take(25).collect(),
    }
}

/// Whether it changes while it is kept.
pub fn is_mutable(object: &Object) -> bool {
    matches!(object.id.kind, Kind::CacheMount | Kind::Git)
}

/// Whether pruning may take it.
pub fn is_reclaimable(object: &Object) -> bool {
    !object.in_use && object.images.is_empty()
}

/// Prints objects, in the order given.
pub fn print(out: &mut dyn Write, objects: &[Object], format: Format, now_ms: i64) -> io::Result<()> {
    match format {
        Format::Table => table(out, objects, now_ms),
        Format::Verbose => objects.iter().try_for_each(|object| block(out, object)),
        Format::Json => objects.iter().try_for_each(|object| writeln!(out, "{}", json(object))),
    }
}

fn table(out: &mut dyn Write, objects: &[Object], now_ms: i64) -> io::Result<()> {
    writeln!(out, "{:27} {:12} {:>10}  {:20}  DESCRIPTION", "ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED")?;
    for object in objects {
        let star = |is: bool| if is { "*" } else { "" };
        let id = format!("{}{}", short_id(&object.id), star(is_mutable(object)));
        let size = format!("{}{}", bytes(object.size.bytes), star(object.shared));
        let used = ago(now_ms - object.used_ms);
        let about: String = object.description.chars().take(60).collect();
        writeln!(out, "{id:27} {:12} {size:>10}  {used:20}  {about}", is_reclaimable(object))?;
    }
    Ok(())
}

fn block(out: &mut dyn Write, object: &Object) -> io::Result<()> {
    writeln!(out, "ID:\t\t{}", full_id(&object.id))?;
    if let Some(parent) = &object.parent {
        writeln!(out, "Parents:\t{parent}")?;
    }
    writeln!(out, "Created at:\t{}", rfc3339_millis(object.created_ms))?;
    writeln!(out, "Mutable:\t{}", is_mutable(object))?;
    writeln!(out, "Reclaimable:\t{}", is_reclaimable(object))?;
    if !object.images.is_empty() {
        writeln!(out, "Images:\t\t{}", object.images.join(", "))?;
    }
    writeln!(out, "Shared:\t\t{}", object.shared)?;
    writeln!(out, "Size:\t\t{}", bytes(object.size.bytes))?;
    if !object.description.is_empty() {
        writeln!(out, "Description:\t{}", object.description)?;
    }
    writeln!(out, "Usage count:\t{}", object.uses)?;
    writeln!(out, "Last used:\t{}", rfc3339_millis(object.used_ms))?;
    writeln!(out, "Cost:\t\t{:.1}s", object.cost_ms as f64 / 1000.0)?;
    writeln!(out, "Type:\t\t{}\n", object.category)
}

fn json(object: &Object) -> serde_json::Value {
    json!({
        "ID": full_id(&object.id),
        "Parents": object.parent.iter().collect::<Vec<_>>(),
        "CreatedAt": rfc3339_millis(object.created_ms),
        "Mutable": is_mutable(object),
        "Reclaimable": is_reclaimable(object),
        "Images": object.images,
        "Shared": object.shared,
        "Size": bytes(object.size.bytes),
        "Bytes": object.size.bytes,
        "Description": object.description,
        "UsageCount": object.uses,
        "LastUsedAt": rfc3339_millis(object.used_ms),
        "Type": object.category,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_in_tables() {
        let mount = ObjectId::new(Kind::CacheMount, format!("{}/3", "ab".repeat(32)));
        assert_eq!(short_id(&mount), "ababababababababababab/3");
        assert_eq!(short_id(&ObjectId::new(Kind::Blob, "cd".repeat(32))), "sha256:cdcdcdcdcdcdcdcdcd");
    }
}
