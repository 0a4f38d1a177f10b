//! Secrets of the client, read at each use so that an edited file is seen by later steps. Values are held in memory only:
//! never in keys, logs, layers or panics. Rules: reference/engine.md 11.

use crate::cli::csv;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Largest secret, in bytes.
pub const LIMIT_BYTES: u64 = 500 * 1024;

/// Where the value of a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A file, by its path.
    File(PathBuf),
    /// An environment variable of the client, by its name.
    Variable(String),
    /// A value that was given by the program itself.
    Value(Value),
}

/// A value. Does not show itself.
#[derive(Clone, PartialEq, Eq)]
struct Value(Vec<u8>);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// A `--secret` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No `id=`.
    #[error("secret missing ID")]
    NoId,
    /// The flag is no record.
    #[error(transparent)]
    Record(#[from] csv::BadRecord),
    /// A key of the flag that there is not.
    #[error("unexpected key '{key}' in '{field}'")]
    UnknownKey { key: String, field: String },
    /// A field without `=`.
    #[error("invalid field '{0}' must be a key=value pair")]
    NotAPair(String),
    /// `type=` is neither `file` nor `env`.
    #[error("unsupported secret type {0:?}")]
    UnknownType(String),
    /// The file cannot be used.
    #[error("failed to stat {}", path.display())]
    Stat { path: PathBuf, source: io::Error },
    /// Neither a file nor a link to one.
    #[error("secret {id}: {} is not a regular file", path.display())]
    NotAFile { id: String, path: PathBuf },
    /// It cannot be read now.
    #[error("read secret {id} from {}", path.display())]
    Read { id: String, path: PathBuf, source: io::Error },
    /// Over [`LIMIT_BYTES`].
    #[error("secret {id} too big. max size 500KB")]
    TooBig { id: String },
    /// `required=true` and there is none.
    #[error("secret {id}: not found")]
    NotFound { id: String },
}

/// All secrets that the client offers, by id.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    origins: HashMap<String, Origin>,
}

impl Secrets {
    /// Adds a secret as `--secret` describes it: `id=X[,src=PATH][,env=VAR][,type=file|env]`. Of equal ids the last wins.
    /// A file must exist and be readable now.
    pub fn add(&mut self, flag: &str) -> Result<(), SecretError> {
        let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
        for field in csv::fields(flag)? {
            let Some((key, value)) = field.split_once('=') else { return Err(SecretError::NotAPair(field)) };
            match key.to_ascii_lowercase().as_str() {
                "id" => id = Some(value.to_string()),
                "src" | "source" => source = Some(value.to_string()),
                "env" => variable = Some(value.to_string()),
                "type" if matches!(value, "file" | "env") => kind = Some(value.to_string()),
                "type" => return Err(SecretError::UnknownType(value.to_string())),
                _ => return Err(SecretError::UnknownKey { key: key.to_string(), field: field.clone() }),
            }
        }
        let id = id.filter(|id| !id.is_empty()).ok_or(SecretError::NoId)?;
        let origin = match (kind.as_deref(), source, variable) {
            (Some("env"), source, variable) => Origin::Variable(variable.or(source).unwrap_or_else(|| id.clone())),
            (Some(_), source, _) => Origin::File(source.unwrap_or_else(|| id.clone()).into()),
            (None, None, Some(variable)) => Origin::Variable(variable),
            (None, Some(source), _) => Origin::File(source.into()),
            (None, None, None) if std::env::var_os(&id).is_some() => Origin::Variable(id.clone()),
            (None, None, None) => Origin::File(id.clone().into()),
        };
        if let Origin::File(path) = &origin {
            check_file(&id, path)?;
        }
        self.origins.insert(id, origin);
        Ok(())
    }

    /// Adds a secret by its value.
    pub fn add_value(&mut self, id: &str, value: Vec<u8>) {
        self.origins.insert(id.to_string(), Origin::Value(Value(value)));
    }

    /// Whether there is a secret of this id.
    pub fn contains(&self, id: &str) -> bool {
        self.origins.contains_key(id)
    }

    /// The value as it is now; `None` if there is no such secret, or its variable is not set.
    pub fn get(&self, id: &str) -> Result<Option<Vec<u8>>, SecretError> {
        let value = match self.origins.get(id) {
            None => return Ok(None),
            Some(Origin::Value(value)) => value.0.clone(),
            Some(Origin::Variable(name)) => match std::env::var_os(name) {
                None => return Ok(None),
                Some(value) => std::os::unix::ffi::OsStringExt::into_vec(value),
            },
            Some(Origin::File(path)) => {
                check_file(id, path)?;
                std::fs::read(path).map_err(|source| SecretError::Read { id: id.into(), path: path.clone(), source })?
            }
        };
        if value.len() as u64 > LIMIT_BYTES {
            return Err(SecretError::TooBig { id: id.into() });
        }
        Ok(Some(value))
    }

    /// As [`Secrets::get`]; none is an error if it is required.
    pub fn get_for(&self, id: &str, required: bool) -> Result<Option<Vec<u8>>, SecretError> {
        match self.get(id)? {
            None if required => Err(SecretError::NotFound { id: id.into() }),
            value => Ok(value),
        }
    }
}

/// The file can be read and is not too big.
fn check_file(id: &str, path: &Path) -> Result<(), SecretError> {
    let stat = std::fs::metadata(path).map_err(|source| SecretError::Stat { path: path.into(), source })?;
    if !stat.is_file() {
        return Err(SecretError::NotAFile { id: id.into(), path: path.into() });
    }
    if stat.len() > LIMIT_BYTES {
        return Err(SecretError::TooBig { id: id.into() });
    }
    std::fs::File::open(path).map(drop).map_err(|source| SecretError::Read { id: id.into(), path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flag: &str, expect: Result<(&str, Option<&str>), &str>) {
        let mut secrets = Secrets::default();
        let result = secrets.add(flag).map_err(|error| error.to_string());
        let got = result.and_then(|()| {
            let id = secrets.origins.keys().next().unwrap().clone();
            let value = secrets.get(&id).map_err(|error| error.to_string())?;
            Ok((id, value.map(|value| String::from_utf8(value).unwrap())))
        });
        let expect = expect.map(|(id, value)| (id.to_string(), value.map(str::to_string))).map_err(str::to_string);
        assert_eq!(got, expect, "{flag}");
    }

    #[test]
    fn flags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a,b");
        std::fs::write(&path, "sesame").unwrap();
        let path = path.to_str().unwrap();
        check(&format!("id=x,\"src={path}\""), Ok(("x", Some("sesame"))));
        check(&format!("\"source={path}\",type=file,id=y"), Ok(("y", Some("sesame"))));
        check("id=v,env=KILN_TEST_NO_SUCH_VARIABLE", Ok(("v", None)));
        check("id=PATH", Ok(("PATH", Some(&std::env::var("PATH").unwrap()))));
        check("id=p,type=env,src=PATH", Ok(("p", Some(&std::env::var("PATH").unwrap()))));
        check("src=x", Err("secret missing ID"));
        check("id=x,type=y", Err("unsupported secret type \"y\""));
        check("id=x,sre=y", Err("unexpected key 'sre' in 'sre=y'"));
        check("x", Err("invalid field 'x' must be a key=value pair"));
        check("id=x,src=/no/such", Err("failed to stat /no/such"));
        check("id=x,src=/", Err("secret x: / is not a regular file"));
    }

    #[test]
    fn values_do_not_show() {
        let mut secrets = Secrets::default();
        secrets.add_value("x", b"sesame".to_vec());
        assert!(!format!("{secrets:?}").contains("sesame"));
        assert_eq!(secrets.get_for("y", true).unwrap_err().to_string(), "secret y: not found");
    }
}
