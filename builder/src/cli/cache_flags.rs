//! `--cache-from` and `--cache-to` as buildx reads them: names of images, or `type=…,key=value…`.

use super::csv;
use std::collections::BTreeMap;

/// One remote cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSpec {
    /// Such as `registry`.
    pub kind: String,
    /// `type` left out.
    pub attributes: BTreeMap<String, String>,
}

/// A value that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum CacheFlagError {
    #[error("invalid cache")]
    Record(#[from] csv::BadRecord),
    #[error("invalid cache \"{value}\": field `{field}` must be a key=value pair")]
    NotAPair { value: String, field: String },
    #[error("invalid cache \"{value}\": type is required")]
    NoType { value: String },
}

/// Reads all values of one flag.
pub fn parse(values: &[String]) -> Result<Vec<CacheSpec>, CacheFlagError> {
    let mut specs = vec![];
    for value in values.iter().filter(|value| !value.is_empty()) {
        let pairs = csv::pairs(value)?;
        if pairs.iter().all(|(_, value)| value.is_none()) {
            // References, whose case counts.
            specs.extend(csv::fields(value)?.into_iter().map(|name| CacheSpec {
                kind: "registry".into(),
                attributes: BTreeMap::from([("ref".to_string(), name)]),
            }));
            continue;
        }
        let mut attributes = BTreeMap::new();
        for (key, given) in pairs {
            let given = given.ok_or_else(|| CacheFlagError::NotAPair { value: value.clone(), field: key.clone() })?;
            attributes.insert(key, given);
        }
        let kind = attributes.remove("type").ok_or_else(|| CacheFlagError::NoType { value: value.clone() })?;
        specs.push(CacheSpec { kind, attributes });
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let check = |value: &str, want: &[(&str, &[(&str, &str)])]| {
            let specs = parse(&[value.to_string()]).unwrap();
            let shown: Vec<(&str, Vec<(&str, &str)>)> = specs
                .iter()
                .map(|spec| {
                    let attributes = spec.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
                    (spec.kind.as_str(), attributes.collect())
                })
                .collect();
            let want: Vec<(&str, Vec<(&str, &str)>)> = want.iter().map(|(k, a)| (*k, a.to_vec())).collect();
            assert_eq!(shown, want, "{value}");
        };
        check("user/app:tag", &[("registry", &[("ref", "user/app:tag")])]);
        check(
            "user/app:a,user/app:B",
            &[("registry", &[("ref", "user/app:a")]), ("registry", &[("ref", "user/app:B")])],
        );
        check("type=local,Dest=x,mode=max", &[("local", &[("dest", "x"), ("mode", "max")])]);
        check("type=inline", &[("inline", &[])]);
        check("", &[]);
        for bad in ["ref=x", "type=registry,x"] {
            assert!(parse(&[bad.to_string()]).is_err(), "{bad}");
        }
    }
}
