//! Docker's `config.json` with a login more or less. Everything else in it stays as it is written, byte for byte: other
//! programs keep there what kiln knows nothing of.

use super::credentials::{Credential, normalise};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a login cannot be kept in a file.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// Reading or writing failed.
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        /// Such as `read`.
        verb: &'static str,
        /// The file, or its folder.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
    /// It is not what Docker writes, so nothing is changed in it.
    #[error("`{}` is not JSON as Docker writes it: correct it or move it away", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A token that Docker's file has no place for.
    #[error("only passwords and identity tokens can be kept")]
    Unkept,
}

/// A JSON object whose values are not looked at, in the order in which it is written.
struct Object(Vec<(String, Box<RawValue>)>);

/// The file, read.
pub struct AuthFile {
    path: PathBuf,
    keys: Object,
}

impl AuthFile {
    /// Reads it; a file that is not there is empty.
    pub fn read(path: &Path) -> Result<AuthFile, AuthFileError> {
        // Who keeps the file elsewhere and links to it wants the other place written to.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(AuthFileError::Io { verb: "read", path, source }),
        };
        let keys = match text.trim().is_empty() {
            true => Object(vec![]),
            false => match serde_json::from_str(&text) {
                Ok(keys) => keys,
                Err(source) => return Err(AuthFileError::Syntax { path, source }),
            },
        };
        Ok(AuthFile { path, keys })
    }

    /// Where it is, links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The credential helper that keeps the logins of a server, if one does.
    pub fn helper(&self, domain: &str) -> Option<String> {
        let helpers = self.object("credHelpers").ok()?.0;
        let own = helpers.iter().find(|(key, _)| normalise(key) == domain).map(|(_, value)| &**value);
        let helper = own.or_else(|| self.keys.get("credsStore"))?;
        serde_json::from_str(helper.get()).ok().filter(|helper: &String| !helper.is_empty())
    }

    /// Puts a login in, in place of what was there for the server. `key` names the server as Docker does.
    pub fn put(&mut self, domain: &str, key: &str, user: &str, credential: &Credential) -> Result<(), AuthFileError> {
        let entry = match credential {
            Credential::Password { username, password } => {
                serde_json::json!({ "auth": STANDARD.encode(format!("{username}:{password}")) })
            }
            Credential::IdentityToken(token) => {
                serde_json::json!({ "auth": STANDARD.encode(format!("{user}:")), "identitytoken": token })
            }
            Credential::RegistryToken(_) => return Err(AuthFileError::Unkept),
        };
        let mut auths = self.object("auths")?;
        auths.0.retain(|(known, _)| normalise(known) != domain);
        auths.0.push((key.to_string(), raw(&entry.to_string())));
        self.set_auths(&auths);
        Ok(())
    }

    /// Takes the logins of a server out; says whether there were any.
    pub fn remove(&mut self, domain: &str) -> Result<bool, AuthFileError> {
        let mut auths = self.object("auths")?;
        let before = auths.0.len();
        auths.0.retain(|(known, _)| normalise(known) != domain);
        let removed = auths.0.len() < before;
        if removed {
            self.set_auths(&auths);
        }
        Ok(removed)
    }

    /// Writes it, mode 0600, whole or not at all.
    pub fn write(&self) -> Result<(), AuthFileError> {
        let failed = |verb, path: &Path| {
            let path = path.to_owned();
            move |source| AuthFileError::Io { verb, path, source }
        };
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(failed("make the folder", folder))?;
        let mut aside = tempfile::Builder::new()
            .prefix(".kiln-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(folder)
            .map_err(failed("create a file in", folder))?;
        let text = self.keys.to_text("");
        let written = aside.write_all(text.as_bytes()).and_then(|()| aside.as_file().sync_all());
        written.map_err(failed("write", &self.path))?;
        aside.persist(&self.path).map_err(|error| failed("write", &self.path)(error.error))?;
        Ok(())
    }

    fn object(&self, key: &str) -> Result<Object, AuthFileError> {
        match self.keys.get(key) {
            None => Ok(Object(vec![])),
            Some(value) if value.get() == "null" => Ok(Object(vec![])),
            Some(value) => serde_json::from_str(value.get())
                .map_err(|source| AuthFileError::Syntax { path: self.path.clone(), source }),
        }
    }

    fn set_auths(&mut self, auths: &Object) {
        let value = raw(&auths.to_text("\t"));
        match self.keys.0.iter_mut().find(|(key, _)| key == "auths") {
            Some((_, old)) => *old = value,
            None => self.keys.0.push(("auths".into(), value)),
        }
    }
}

impl Object {
    fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| &**value)
    }

    /// As Docker lays it out: a tab more for each level. `indent` is that of the line it begins in.
    fn to_text(&self, indent: &str) -> String {
        if self.0.is_empty() {
            return "{}".to_string();
        }
        let line = |(key, value): &(String, Box<RawValue>)| {
            let key = serde_json::to_string(key).expect("a string is JSON");
            format!("{indent}\t{key}: {value}")
        };
        format!("{{\n{}\n{indent}}}", self.0.iter().map(line).collect::<Vec<_>>().join(",\n"))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut pairs = vec![];
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Object(pairs))
            }
        }
        from.deserialize_map(Pairs)
    }
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_string()).expect("made of JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(password: &str) -> Credential {
        Credential::Password { username: "u".into(), password: password.into() }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = "{\n\t\"psFormat\": \"x\\u0041\",\n\t\"n\": 12345678901234567890123.50,\n\t\"auths\": {\n\t\t\
                    \"https://a.example/v1/\": {\"auth\": \"eDp5\"},\n\t\t\"b.example\": { \"auth\":\"eDp5\" }\n\t},\n\t\
                    \"z\": [ 1,2 ]\n}";
        fs::write(&path, text).unwrap();
        let mut file = AuthFile::read(&path).unwrap();
        file.put("a.example", "a.example", "u", &password("p")).unwrap();
        file.write().unwrap();
        let expect = text
            .replace("\t\t\"https://a.example/v1/\": {\"auth\": \"eDp5\"},\n", "")
            .replace("\"auth\":\"eDp5\" }\n", "\"auth\":\"eDp5\" },\n\t\t\"a.example\": {\"auth\":\"dTpw\"}\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), expect);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(file.remove("a.example").unwrap());
        assert!(!file.remove("a.example").unwrap());
        assert!(file.remove("b.example").unwrap());
        file.write().unwrap();
        let left = fs::read_to_string(&path).unwrap();
        assert!(left.contains("\t\"auths\": {},\n\t\"z\": [ 1,2 ]\n}"), "{left}");
    }

    #[test]
    fn the_file_is_made_and_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("new/config.json"), dir.path().join("link"));
        let mut file = AuthFile::read(&path).unwrap();
        file.put("a.example", "a.example", "u", &Credential::IdentityToken("t".into())).unwrap();
        file.write().unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = AuthFile::read(&link).unwrap();
        assert!(file.remove("a.example").unwrap());
        file.write().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n\t\"auths\": {}\n}");
    }

    #[test]
    fn what_is_no_json_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for text in ["{", "[]", "7"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(AuthFile::read(&path), Err(AuthFileError::Syntax { .. })), "{text}");
        }
        fs::write(&path, r#"{"auths":[]}"#).unwrap();
        let mut file = AuthFile::read(&path).unwrap();
        assert!(file.put("a.example", "a.example", "u", &password("p")).is_err());
    }

    #[test]
    fn helpers_by_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, r#"{"credHelpers":{"a.example":"one"},"credsStore":"two"}"#).unwrap();
        let file = AuthFile::read(&path).unwrap();
        assert_eq!(file.helper("a.example").as_deref(), Some("one"));
        assert_eq!(file.helper("b.example").as_deref(), Some("two"));
        fs::write(&path, "{}").unwrap();
        assert_eq!(AuthFile::read(&path).unwrap().helper("a.example"), None);
    }
}
