//! One comma-separated record of `key=value` fields, as flags of docker take them (RFC 4180: a field that holds a
//! comma is quoted as a whole).

pub use frontend::csv::boolean;

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{record}` is not a list of comma-separated fields: {problem}")]
pub struct BadRecord {
    pub record: String,
    pub problem: String,
}

/// The fields of the record, quotes removed; an empty text has none.
pub fn fields(record: &str) -> Result<Vec<String>, BadRecord> {
    if record.is_empty() {
        return Ok(vec![]);
    }
    let bad = |problem| BadRecord { record: record.to_string(), problem };
    frontend::csv::fields(record).map_err(bad)
}

/// The fields as pairs, keys trimmed and in lower case; a field without `=` has no value.
pub fn pairs(record: &str) -> Result<Vec<(String, Option<String>)>, BadRecord> {
    let split = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.trim().to_lowercase(), Some(value.to_string())),
        None => (field.trim().to_lowercase(), None),
    };
    Ok(fields(record)?.into_iter().map(split).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_hold_commas() {
        let check = |record: &str, want: &[&str]| assert_eq!(fields(record).unwrap(), want, "{record}");
        check("", &[]);
        check("type=oci,dest=x", &["type=oci", "dest=x"]);
        check("type=oci,\"name=a,b\"", &["type=oci", "name=a,b"]);
        check("a,,b", &["a", "", "b"]);
        assert!(fields("\"a").is_err());
    }
}
