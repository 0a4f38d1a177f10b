//! `kiln.toml`, read once: where registries are and how to reach them. Its keys are those of buildkitd.toml, so that
//! the registry part of an existing file can be taken over as it is.
//!
//! Keys of buildkitd that kiln does not honour are refused by name, as are near misses of known keys; anything else
//! unknown gives a warning, so that a file for a newer kiln still works.

use crate::space::{GcConfig, Space};
use frontend::lint::rules::KILN_GROUP;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// All of `kiln.toml`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Where it was read; `None` if there is no file.
    pub path: Option<PathBuf>,
    /// `[registry."domain"]`, by domain as in references, such as `docker.io` or `localhost:5000`.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// `[checks]`
    pub checks: ChecksConfig,
    /// `[gc]`
    pub gc: GcConfig,
    /// `unpackedLayer` of `[limits]`: what a layer may unpack to, in bytes.
    pub unpacked_layer: Option<u64>,
    /// Remarks for the user, to be shown once.
    pub warnings: Vec<String>,
}

/// Build checks, for all Dockerfiles. kiln's own table: buildkitd has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChecksConfig {
    /// Rules that do not run; `kiln`, `all`.
    pub skip: Vec<String>,
    /// Rules that run though they are off, or are warnings though they are kiln's own; `kiln`, `all`.
    pub experimental: Vec<String>,
}

/// How to reach one registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegistryConfig {
    /// Hosts, possibly with a path, to be asked before the registry itself, in order. For pulls only.
    pub mirrors: Vec<String>,
    /// Speak plain HTTP. `None`: only if the host is this machine.
    pub http: Option<bool>,
    /// Do not check certificates, and fall back to plain HTTP.
    pub insecure: bool,
    /// PEM files with roots to trust beside the system's.
    pub ca: Vec<PathBuf>,
    /// Client certificates.
    pub key_pairs: Vec<KeyPair>,
    /// Folders with `*.crt` (roots) and pairs of `X.cert`, `X.key`.
    pub tls_config_dirs: Vec<PathBuf>,
}

/// A client certificate and its key, PEM files.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyPair {
    /// Private key.
    pub key: PathBuf,
    /// Certificate chain.
    pub cert: PathBuf,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
    /// Not TOML.
    #[error("`{}` is not valid TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong.
        source: Box<toml::de::Error>,
    },
    /// A setting of buildkitd that does nothing here.
    #[error("`{}`: `{key}` is a setting of buildkitd that kiln does not have; remove it", path.display())]
    NotHonoured {
        /// The file.
        path: PathBuf,
        /// The key, with those of the tables around it.
        key: String,
    },
    /// Nearly a known key.
    #[error("`{}`: unknown key `{key}`: did you mean `{suggestion}`?", path.display())]
    Misspelt {
        /// The file.
        path: PathBuf,
        /// The key, with those of the tables around it.
        key: String,
        /// The known key.
        suggestion: &'static str,
    },
    /// A value of another type than it should be.
    #[error("`{}`: `{key}` must be {expected}", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The key, with those of the tables around it.
        key: String,
        /// Such as `a list of strings`.
        expected: &'static str,
    },
}

/// Top-level settings of buildkitd other than `registry`.
const BUILDKITD_KEYS: [&str; 16] = [
    "cdi",
    "debug",
    "dns",
    "entitlements",
    "frontend",
    "grpc",
    "history",
    "insecure-entitlements",
    "log",
    "otel",
    "provenanceEnvDir",
    "proxyNetwork",
    "root",
    "system",
    "trace",
    "worker",
];

const TOP_KEYS: [&str; 4] = ["registry", "checks", "gc", "limits"];
const LIMITS_KEYS: [&str; 1] = ["unpackedLayer"];
const GC_KEYS: [&str; 4] = ["enabled", "reservedSpace", "maxUsedSpace", "minFreeSpace"];
const CHECKS_KEYS: [&str; 2] = ["skip", "experimental"];
const REGISTRY_KEYS: [&str; 6] = ["mirrors", "http", "insecure", "ca", "keypair", "tlsconfigdir"];
const KEYPAIR_KEYS: [&str; 2] = ["key", "cert"];

impl Config {
    /// Reads the first that there is of `explicit` (`--config`), `$KILN_CONFIG`, `$XDG_CONFIG_HOME/kiln/kiln.toml`
    /// (else below `~/.config`) and `/etc/kiln/kiln.toml`. The first two must exist if they are given.
    pub fn load(explicit: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> Result<Config, ConfigError> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = explicit.map(Path::to_owned).or_else(|| set("KILN_CONFIG")) {
            return Config::read(&path);
        }
        let user = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        let candidates = user.into_iter().map(|dir| dir.join("kiln/kiln.toml")).chain(["/etc/kiln/kiln.toml".into()]);
        for path in candidates {
            match Config::read(&path) {
                Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                result => return result,
            }
        }
        Ok(Config::default())
    }

    fn read(path: &Path) -> Result<Config, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(&text, path)
    }

    /// Parses the text of the file `path`; relative paths in it start at its folder.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let table: Table =
            text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let mut reader = Reader { path, warnings: vec![] };
        let mut registries = BTreeMap::new();
        let mut checks = ChecksConfig::default();
        let mut gc = GcConfig::default();
        let mut unpacked_layer = None;
        for (key, value) in &table {
            if BUILDKITD_KEYS.contains(&key.as_str()) {
                return Err(ConfigError::NotHonoured { path: path.to_owned(), key: key.clone() });
            }
            if key == "checks" {
                checks = reader.checks(reader.table(value, "checks")?)?;
                continue;
            }
            if key == "gc" {
                gc = reader.gc(reader.table(value, "gc")?)?;
                continue;
            }
            if key == "limits" {
                unpacked_layer = reader.limits(reader.table(value, "limits")?)?;
                continue;
            }
            if key != "registry" {
                reader.unknown(key, "", &TOP_KEYS)?;
                continue;
            }
            for (domain, value) in reader.table(value, "registry")? {
                let name = format!("registry.\"{domain}\"");
                let registry = reader.registry(reader.table(value, &name)?, &name)?;
                registries.insert(domain.clone(), registry);
            }
        }
        Ok(Config { path: Some(path.to_owned()), registries, checks, gc, unpacked_layer, warnings: reader.warnings })
    }
}

/// Reads values, and knows where it is for the errors.
struct Reader<'a> {
    path: &'a Path,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn checks(&mut self, table: &Table) -> Result<ChecksConfig, ConfigError> {
        let mut checks = ChecksConfig::default();
        for (key, value) in table {
            let full = format!("checks.{key}");
            match key.as_str() {
                "skip" => checks.skip = self.rules(value, &full)?,
                "experimental" => checks.experimental = self.rules(value, &full)?,
                _ => self.unknown(key, "checks", &CHECKS_KEYS)?,
            }
        }
        Ok(checks)
    }

    fn gc(&mut self, table: &Table) -> Result<GcConfig, ConfigError> {
        let mut gc = GcConfig::default();
        for (key, value) in table {
            let full = format!("gc.{key}");
            match key.as_str() {
                "enabled" => gc.enabled = self.bool(value, &full)?,
                "reservedSpace" => gc.reserved = Some(self.space(value, &full)?),
                "maxUsedSpace" => gc.max_used = Some(self.space(value, &full)?),
                "minFreeSpace" => gc.min_free = Some(self.space(value, &full)?),
                _ => self.unknown(key, "gc", &GC_KEYS)?,
            }
        }
        Ok(gc)
    }

    fn limits(&mut self, table: &Table) -> Result<Option<u64>, ConfigError> {
        let mut unpacked_layer = None;
        for (key, value) in table {
            let full = format!("limits.{key}");
            match key.as_str() {
                "unpackedLayer" => match self.space(value, &full) {
                    Ok(Space::Bytes(bytes)) => unpacked_layer = Some(bytes),
                    Ok(Space::Percent(_)) | Err(_) => {
                        return Err(self.mismatch(&full, "bytes, or a size such as \"20GB\""));
                    }
                },
                _ => self.unknown(key, "limits", &LIMITS_KEYS)?,
            }
        }
        Ok(unpacked_layer)
    }

    fn space(&self, value: &Value, key: &str) -> Result<Space, ConfigError> {
        let space = match value {
            Value::Integer(bytes) => u64::try_from(*bytes).ok().map(Space::Bytes),
            Value::String(text) => Space::parse(text).ok(),
            _ => None,
        };
        space.ok_or_else(|| self.mismatch(key, "bytes, a size such as \"20GB\", or a share such as \"60%\""))
    }

    /// Names of rules. A file for a newer kiln may have rules that this one lacks.
    fn rules(&mut self, value: &Value, key: &str) -> Result<Vec<String>, ConfigError> {
        let names = self.strings(value, key)?;
        for name in &names {
            let is_known = frontend::lint::rule(name).is_some() || ["all", KILN_GROUP].contains(&name.as_str());
            if !is_known {
                self.warnings.push(format!("`{}`: `{key}`: there is no build check `{name}`", self.path.display()));
            }
        }
        Ok(names)
    }

    fn registry(&mut self, table: &Table, name: &str) -> Result<RegistryConfig, ConfigError> {
        let mut registry = RegistryConfig::default();
        for (key, value) in table {
            let full = format!("{name}.{key}");
            match key.as_str() {
                "mirrors" => registry.mirrors = self.strings(value, &full)?,
                "http" => registry.http = Some(self.bool(value, &full)?),
                "insecure" => registry.insecure = self.bool(value, &full)?,
                "ca" => registry.ca = self.paths(value, &full)?,
                "tlsconfigdir" => registry.tls_config_dirs = self.paths(value, &full)?,
                "keypair" => {
                    let Value::Array(pairs) = value else {
                        return Err(self.mismatch(&full, "a list of tables: `[[…keypair]]`"));
                    };
                    for pair in pairs {
                        let pair = self.table(pair, &full)?;
                        registry.key_pairs.push(self.key_pair(pair, &full)?);
                    }
                }
                _ => self.unknown(key, name, &REGISTRY_KEYS)?,
            }
        }
        Ok(registry)
    }

    fn key_pair(&mut self, table: &Table, name: &str) -> Result<KeyPair, ConfigError> {
        let (mut key_path, mut cert_path) = (None, None);
        for (key, value) in table {
            let full = format!("{name}.{key}");
            match key.as_str() {
                "key" => key_path = Some(self.file(value, &full)?),
                "cert" => cert_path = Some(self.file(value, &full)?),
                _ => self.unknown(key, name, &KEYPAIR_KEYS)?,
            }
        }
        match (key_path, cert_path) {
            (Some(key), Some(cert)) => Ok(KeyPair { key, cert }),
            _ => Err(self.mismatch(name, "a table with both `key` and `cert`")),
        }
    }

    fn unknown(&mut self, key: &str, parent: &str, known: &[&'static str]) -> Result<(), ConfigError> {
        let full = if parent.is_empty() { key.to_string() } else { format!("{parent}.{key}") };
        if let Some(suggestion) = known.iter().copied().find(|known| distance(key, known) <= 1 + known.len() / 6) {
            return Err(ConfigError::Misspelt { path: self.path.to_owned(), key: full, suggestion });
        }
        self.warnings.push(format!("`{}`: unknown key `{full}` is ignored", self.path.display()));
        Ok(())
    }

    fn mismatch(&self, key: &str, expected: &'static str) -> ConfigError {
        ConfigError::Type { path: self.path.to_owned(), key: key.to_string(), expected }
    }

    fn table<'v>(&self, value: &'v Value, key: &str) -> Result<&'v Table, ConfigError> {
        value.as_table().ok_or_else(|| self.mismatch(key, "a table"))
    }

    fn bool(&self, value: &Value, key: &str) -> Result<bool, ConfigError> {
        value.as_bool().ok_or_else(|| self.mismatch(key, "true or false"))
    }

    fn file(&self, value: &Value, key: &str) -> Result<PathBuf, ConfigError> {
        let path = value.as_str().ok_or_else(|| self.mismatch(key, "a path"))?;
        Ok(self.path.parent().unwrap_or(Path::new("")).join(path))
    }

    fn strings(&self, value: &Value, key: &str) -> Result<Vec<String>, ConfigError> {
        let strings = value.as_array().and_then(|values| {
            values.iter().map(|value| value.as_str().map(str::to_string)).collect::<Option<Vec<String>>>()
        });
        strings.ok_or_else(|| self.mismatch(key, "a list of strings"))
    }

    fn paths(&self, value: &Value, key: &str) -> Result<Vec<PathBuf>, ConfigError> {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        Ok(self.strings(value, key)?.iter().map(|path| dir.join(path)).collect())
    }
}

/// Levenshtein's: how many letters to change, add or remove; case does not count.
fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (above, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (column, b) in other.chars().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = change.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/kiln/kiln.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn registry_tables_of_buildkitd_are_read() {
        let config = parse(
            r#"
            [registry."docker.io"]
            mirrors = ["mirror.example", "proxy.example/hub"]
            [registry."r.example:5000"]
            http = false
            insecure = true
            ca = ["/ca.pem", "own.pem"]
            tlsconfigdir = ["certs"]
            [[registry."r.example:5000".keypair]]
            key = "/k.pem"
            cert = "/c.pem"
            "#,
        )
        .unwrap();
        assert_eq!(config.registries["docker.io"].mirrors, ["mirror.example", "proxy.example/hub"]);
        let expected = RegistryConfig {
            mirrors: vec![],
            http: Some(false),
            insecure: true,
            ca: vec!["/ca.pem".into(), "/etc/kiln/own.pem".into()],
            key_pairs: vec![KeyPair { key: "/k.pem".into(), cert: "/c.pem".into() }],
            tls_config_dirs: vec!["/etc/kiln/certs".into()],
        };
        assert_eq!(config.registries["r.example:5000"], expected);
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn faults_are_named() {
        let check = |text: &str, expect: &str| assert_eq!(parse(text).unwrap_err(), expect, "{text}");
        check(
            "[worker.oci]\nenabled = true",
            "`/etc/kiln/kiln.toml`: `worker` is a setting of buildkitd that kiln does not have; remove it",
        );
        check("[registri.x]", "`/etc/kiln/kiln.toml`: unknown key `registri`: did you mean `registry`?");
        check(
            "[registry.x]\nmirror = []",
            "`/etc/kiln/kiln.toml`: unknown key `registry.\"x\".mirror`: did you mean `mirrors`?",
        );
        check("[registry.x]\nhttp = 1", "`/etc/kiln/kiln.toml`: `registry.\"x\".http` must be true or false");
        check("[registry.x]\nca = \"a\"", "`/etc/kiln/kiln.toml`: `registry.\"x\".ca` must be a list of strings");
        check(
            "[[registry.x.keypair]]\nkey = \"a\"",
            "`/etc/kiln/kiln.toml`: `registry.\"x\".keypair` must be a table with both `key` and `cert`",
        );
        check(
            "[gc]\nmaxUsedSpace = \"lots\"",
            "`/etc/kiln/kiln.toml`: `gc.maxUsedSpace` must be bytes, a size such as \"20GB\", or a share such as \"60%\"",
        );
        for wrong in ["lots", "60%"] {
            check(
                &format!("[limits]\nunpackedLayer = \"{wrong}\""),
                "`/etc/kiln/kiln.toml`: `limits.unpackedLayer` must be bytes, or a size such as \"20GB\"",
            );
        }
        check("[registry.x", "`/etc/kiln/kiln.toml` is not valid TOML");
    }

    #[test]
    fn limits_of_the_store() {
        let config = parse("[gc]\nmaxUsedSpace = \"10GB\"\nminFreeSpace = \"5%\"\nreservedSpace = 1000").unwrap();
        let expected = GcConfig {
            enabled: true,
            reserved: Some(Space::Bytes(1000)),
            max_used: Some(Space::Bytes(10 << 30)),
            min_free: Some(Space::Percent(5.0)),
        };
        assert_eq!(config.gc, expected);
    }

    #[test]
    fn unknown_keys_are_remarked() {
        let config = parse("shiny = 1\n[registry.x]\nresolvers = 2").unwrap();
        assert_eq!(
            config.warnings,
            [
                "`/etc/kiln/kiln.toml`: unknown key `registry.\"x\".resolvers` is ignored",
                "`/etc/kiln/kiln.toml`: unknown key `shiny` is ignored"
            ]
        );
    }

    #[test]
    fn first_file_found_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let explicit = write("a.toml", "");
        let home = write("home/.config/kiln/kiln.toml", "");
        let env = |name: &str| (name == "HOME").then(|| dir.path().join("home").into_os_string());
        assert_eq!(Config::load(Some(&explicit), env).unwrap().path, Some(explicit));
        assert_eq!(Config::load(None, env).unwrap().path, Some(home));
        let missing = |name: &str| (name == "KILN_CONFIG").then(|| dir.path().join("none").into_os_string());
        assert!(matches!(Config::load(None, missing), Err(ConfigError::Read { .. })));
    }
}
