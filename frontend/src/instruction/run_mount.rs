//! `RUN --mount=…` (reference/dockerfile.md 2.4): its fields, and what they mean once variables are known.

use crate::csv;
use crate::op::{InputIndex, Mount, MountKind, SecretEnv, Sharing};
use crate::path;
use crate::placed::Placed;
use crate::span::Span;
use crate::suggest::{Case, did_you_mean, nearest};
use std::borrow::Cow;

/// A mount as written.
#[derive(Clone, Debug, PartialEq)]
pub struct RunMount {
    /// The record.
    record: Placed,
    /// The fields of the record: `key=value`, or a key alone.
    fields: Vec<Field>,
    /// Stage, named context or image that `from=` names.
    pub from: Option<Placed>,
}

#[derive(Clone, Debug, PartialEq)]
struct Field {
    key: Placed,
    /// Not expanded.
    value: Option<Placed>,
}

/// A field whose variables are replaced.
struct ExpandedField<'a> {
    key: &'a Placed,
    value: Option<Value<'a>>,
}

/// What a value came to.
struct Value<'a> {
    text: Cow<'a, str>,
    written: &'a Placed,
}

impl Value<'_> {
    fn place(&self) -> Span {
        self.written.span()
    }
}

/// What is wrong with a mount.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// In BuildKit's words.
    pub message: String,
    /// Where.
    pub place: Span,
    /// To be shown beside the place; may be empty.
    pub remark: String,
}

impl Fault {
    fn new(message: String, place: Span) -> Fault {
        Fault { message, place, remark: String::new() }
    }
}

/// A mount with its variables replaced and its rules checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Options<'a> {
    /// As written.
    mount: &'a RunMount,
    kind: Kind,
    source: Cow<'a, str>,
    target: Cow<'a, str>,
    id: Cow<'a, str>,
    env: Option<Cow<'a, str>>,
    readonly: Option<bool>,
    required: bool,
    size_bytes: Option<u64>,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

const KINDS: &[(&str, Kind)] = &[
    ("bind", Kind::Bind),
    ("cache", Kind::Cache),
    ("tmpfs", Kind::Tmpfs),
    ("secret", Kind::Secret),
    ("ssh", Kind::Ssh),
];

const SHARINGS: &[(&str, Sharing)] =
    &[("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

const KEYS: &[&str] = &[
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

/// What a mount needs of its surroundings.
pub struct Surroundings<'a> {
    /// Working directory, absolute.
    pub working_dir: &'a str,
    /// Prefix of cache mounts' ids.
    pub cache_namespace: &'a str,
    /// What `from=` came to, or the build context for a bind mount without it: input, and whether it is the client's.
    pub input: &'a mut dyn FnMut() -> (Option<InputIndex>, bool),
    /// Number of the ssh mount.
    pub ssh_index: usize,
}

/// What a mount comes to: a secret may be a file, a variable, or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lowered {
    /// At most one.
    pub mount: Option<Mount>,
    /// For `env=`.
    pub secret_env: Option<SecretEnv>,
}

impl RunMount {
    /// Reads the record. Keys and values are checked when variables are known, but for `from=`, which has none.
    pub fn parse(record: &Placed) -> Result<RunMount, Fault> {
        let fields = csv::placed_fields(record)
            .map_err(|why| Fault::new(format!("failed to parse csv mounts: {why}"), record.span()))?;
        let mut mount = RunMount { record: record.clone(), fields: Vec::with_capacity(fields.len()), from: None };
        for field in fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (field.part(key), Some(field.part(value))),
                None => (field, None),
            };
            if key.eq_ignore_ascii_case("from") {
                let value = value.clone().unwrap_or_default();
                if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                    let why = "doesn't support variable expansion, define alias stage instead";
                    return Err(Fault::new(format!("'{key}' {why}"), value.span()));
                }
                mount.from = Some(value).filter(|from| !from.is_empty());
            }
            mount.fields.push(Field { key, value });
        }
        Ok(mount)
    }

    /// The type, not expanded; `None` where it is left out.
    pub fn kind_written(&self) -> Option<&str> {
        let is_kind = |field: &&Field| field.key.eq_ignore_ascii_case("type");
        self.fields.iter().rfind(is_kind).and_then(|field| field.value.as_deref())
    }

    /// The target, not expanded, for messages.
    pub fn target_written(&self) -> Option<&str> {
        let is_target = |key: &str| ["target", "dst", "destination"].iter().any(|name| key.eq_ignore_ascii_case(name));
        self.fields.iter().rfind(|field| is_target(&field.key)).and_then(|field| field.value.as_deref())
    }

    /// Replaces the variables of all values with `expand`, whose error comes first, and checks the fields.
    pub fn expand<'a, E>(
        &'a self,
        expand: &mut dyn FnMut(&'a Placed) -> Result<Cow<'a, str>, E>,
    ) -> Result<Result<Options<'a>, Fault>, E> {
        let mut fields = Vec::with_capacity(self.fields.len());
        for Field { key, value } in &self.fields {
            let value = match value {
                Some(value) => Some(Value { text: expand(value)?, written: value }),
                None => None,
            };
            fields.push(ExpandedField { key, value });
        }
        Ok(Options::read(self, fields))
    }
}

impl<'a> Options<'a> {
    fn read(mount: &'a RunMount, fields: Vec<ExpandedField<'a>>) -> Result<Options<'a>, Fault> {
        let mut options = Options::new(mount);
        // The type decides what other keys mean, wherever it stands.
        let kind = fields.iter().rfind(|field| field.key.eq_ignore_ascii_case("type"));
        if let Some(ExpandedField { value: Some(value), .. }) = kind {
            options.kind = choose(KINDS, value, "mount type")?;
        }
        for field in fields {
            options.set(field.key, &in_lower_case(field.key), field.value)?;
        }
        options.check()?;
        Ok(options)
    }

    /// Of a mount without fields.
    fn new(mount: &'a RunMount) -> Options<'a> {
        Options {
            mount,
            kind: Kind::default(),
            source: Cow::default(),
            target: Cow::default(),
            id: Cow::default(),
            env: None,
            readonly: None,
            required: false,
            size_bytes: None,
            sharing: None,
            mode: None,
            uid: None,
            gid: None,
        }
    }

    /// `key` is `written` in lower case.
    fn set(&mut self, written: &Placed, key: &str, value: Option<Value<'a>>) -> Result<(), Fault> {
        let needs_value = || Fault {
            message: format!("invalid field '{written}' must be a key=value pair"),
            place: written.span(),
            remark: "`=` and a value must follow".to_string(),
        };
        match key {
            "readonly" | "ro" => self.readonly = Some(boolean(key, value)?),
            "readwrite" | "rw" => self.readonly = Some(!boolean(key, value)?),
            "required" if matches!(self.kind, Kind::Secret | Kind::Ssh) => self.required = boolean(key, value)?,
            "size" if self.kind == Kind::Tmpfs => {
                let value = value.ok_or_else(needs_value)?;
                let wrong = || Fault::new(format!("invalid value for size: {}", value.text), value.place());
                let size = parse_size(&value.text).ok_or_else(wrong)?;
                self.size_bytes = Some(size).filter(|size| *size > 0);
            }
            "required" | "size" => {
                let message = format!("unexpected key '{key}' for mount type '{}'", self.kind_name());
                return Err(Fault::new(message, written.span()));
            }
            key if !KEYS.contains(&key) => {
                let Some(value) = value else { return Err(needs_value()) };
                let message = format!("unexpected key '{key}' in '{written}={}'", value.text);
                let message = did_you_mean(message, key, KEYS, Case::Sensitive);
                let near = nearest(key, KEYS, Case::Sensitive);
                let remark =
                    near.map_or_else(|| format!("one of {}", KEYS.join(", ")), |near| format!("did you mean {near}?"));
                return Err(Fault { message, place: written.span(), remark });
            }
            key => self.set_text(key, value.ok_or_else(needs_value)?)?,
        }
        Ok(())
    }

    fn set_text(&mut self, key: &str, value: Value<'a>) -> Result<(), Fault> {
        let number = |value: &Value<'_>, radix| {
            let wrong = |_| Fault::new(format!("invalid value {} for {key}", value.text), value.place());
            u32::from_str_radix(&value.text, radix).map_err(wrong)
        };
        match key {
            "source" | "src" => self.source = value.text,
            "target" | "dst" | "destination" => self.target = value.text,
            "id" => self.id = value.text,
            "env" => self.env = Some(value.text),
            "sharing" => self.sharing = Some(choose(SHARINGS, &value, "sharing value")?),
            "mode" => self.mode = Some(number(&value, 8)?),
            "uid" => self.uid = Some(number(&value, 10)?),
            "gid" => self.gid = Some(number(&value, 10)?),
            // `type` and `from` are read before.
            _ => {}
        }
        Ok(())
    }

    /// Where the value of the last of some keys stands; the whole record if there is none.
    fn place_of(&self, keys: &[&str]) -> Span {
        let found = self.mount.fields.iter().rfind(|field| keys.contains(&in_lower_case(&field.key).as_ref()));
        found.map_or(self.mount.record.span(), |field| field.value.as_ref().unwrap_or(&field.key).span())
    }

    fn check(&self) -> Result<(), Fault> {
        let fault = |message: &str, keys: &[&str]| Err(Fault::new(message.to_string(), self.place_of(keys)));
        let kind = self.kind_name();
        if matches!(self.kind, Kind::Bind | Kind::Tmpfs) {
            for (key, value) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if value.is_some() {
                    return fault(&format!("{key} not allowed for {kind:?} type mounts"), &[key]);
                }
            }
        }
        if self.kind == Kind::Secret {
            if self.mount.from.is_some() {
                return fault("secret mount should not have a from", &["from"]);
            }
            if self.sharing.is_some() {
                return fault("secret mount should not define sharing", &["sharing"]);
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return fault("invalid secret mount. one of source, target required", &[]);
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return fault("both source and id can't be set", &["source", "src"]);
            }
            if self.env.as_deref().is_some_and(|name| name.is_empty() || name.contains('=')) {
                return fault("invalid secret mount. env must be the name of a variable", &["env"]);
            }
        }
        if self.kind == Kind::Ssh && !self.source.is_empty() {
            return fault("ssh does not support source", &["source", "src"]);
        }
        if self.sharing.is_some() && self.kind != Kind::Cache {
            return fault(&format!("invalid cache sharing set for {kind} mount"), &["sharing"]);
        }
        Ok(())
    }

    fn kind_name(&self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(name, _)| name)
    }

    fn bad_target(&self) -> Fault {
        let place = self.place_of(&["target", "dst", "destination"]);
        Fault {
            message: "invalid mount target \"/\"".to_string(),
            place,
            remark: "the root cannot be mounted over".into(),
        }
    }

    /// Turns the options into a mount.
    pub fn lower(self, around: Surroundings<'_>) -> Result<Lowered, Fault> {
        match self.kind {
            Kind::Secret => return self.lower_secret(around.working_dir),
            Kind::Ssh => return self.lower_ssh(around.working_dir, around.ssh_index),
            Kind::Bind | Kind::Cache | Kind::Tmpfs => {}
        }
        let target = path::join(around.working_dir, &self.target);
        if target == "/" {
            return Err(self.bad_target());
        }
        let source = path::clean(&self.source);
        let kind = if self.kind == Kind::Tmpfs {
            MountKind::Tmpfs { size_bytes: self.size_bytes }
        } else if self.kind == Kind::Bind {
            let (from, from_client) = (around.input)();
            MountKind::Bind { from, source, readonly: self.readonly.unwrap_or(true), from_client }
        } else {
            let id = match (self.id.as_ref(), self.target.as_ref()) {
                ("", absolute) if absolute.starts_with('/') => Cow::Borrowed(target.as_str()),
                ("", relative) => Cow::Owned(default_cache_id(relative)),
                (id, _) => Cow::Borrowed(id),
            };
            // Mode and owner are those of a directory made for the mount, not of one that `from` has.
            let (mode, uid, gid) = if source == "/" { (self.mode, self.uid, self.gid) } else { (None, None, None) };
            MountKind::Cache {
                id: [around.cache_namespace, "/", &id].concat(),
                sharing: self.sharing.unwrap_or(Sharing::Shared),
                from: if self.mount.from.is_some() { (around.input)().0 } else { None },
                source,
                mode,
                uid,
                gid,
                readonly: self.readonly.unwrap_or(false),
            }
        };
        Ok(Lowered { mount: Some(Mount { target, kind }), secret_env: None })
    }

    fn lower_secret(self, working_dir: &str) -> Result<Lowered, Fault> {
        let id = [&*self.id, &*self.source].into_iter().find(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| path::base_name(&self.target)).to_string();
        let target = match (self.target.as_ref(), &self.env) {
            ("", Some(_)) => None,
            ("", None) => Some(format!("/run/secrets/{}", path::base_name(&id))),
            (target, _) => Some(path::join(working_dir, target)),
        };
        if target.as_deref() == Some("/") {
            return Err(self.bad_target());
        }
        let mount = target.map(|target| Mount {
            target,
            kind: MountKind::Secret {
                id: id.clone(),
                required: self.required,
                mode: self.mode.unwrap_or(0o400),
                uid: self.uid.unwrap_or(0),
                gid: self.gid.unwrap_or(0),
            },
        });
        let secret_env = self.env.map(|name| SecretEnv { id, name: name.into_owned(), required: self.required });
        Ok(Lowered { mount, secret_env })
    }

    fn lower_ssh(self, working_dir: &str, index: usize) -> Result<Lowered, Fault> {
        let target = match self.target.as_ref() {
            "" => format!("/run/buildkit/ssh_agent.{index}"),
            target => path::join(working_dir, target),
        };
        if target == "/" {
            return Err(self.bad_target());
        }
        let kind = MountKind::Ssh {
            id: if self.id.is_empty() { "default".to_string() } else { self.id.into_owned() },
            required: self.required,
            mode: self.mode.unwrap_or(0o600),
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
        };
        Ok(Lowered { mount: Some(Mount { target, kind }), secret_env: None })
    }
}

fn in_lower_case(key: &str) -> Cow<'_, str> {
    match key.bytes().all(|byte| byte.is_ascii_lowercase()) {
        true => Cow::Borrowed(key),
        false => Cow::Owned(key.to_lowercase()),
    }
}

/// A relative target without dots and doubled slashes, still relative.
fn default_cache_id(target: &str) -> String {
    match path::clean(target) {
        absolute if absolute == "/" => ".".to_string(),
        absolute => absolute[1..].to_string(),
    }
}

fn choose<T: Copy>(table: &[(&str, T)], value: &Value<'_>, what: &str) -> Result<T, Fault> {
    let Value { text, .. } = value;
    match table.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let names: Vec<_> = table.iter().map(|(name, _)| *name).collect();
            let message = did_you_mean(format!("unsupported {what} {text:?}"), text, &names, Case::Sensitive);
            Err(Fault { message, place: value.place(), remark: format!("one of {}", names.join(", ")) })
        }
    }
}

/// A key alone is true.
fn boolean(key: &str, value: Option<Value<'_>>) -> Result<bool, Fault> {
    let Some(value) = value else { return Ok(true) };
    csv::boolean(&value.text).ok_or_else(|| {
        let remark = "true or false".to_string();
        Fault { message: format!("invalid value for {key}: {}", value.text), place: value.place(), remark }
    })
}

/// Bytes of `10`, `1.5m`, `2GiB`: powers of 1024 whatever the spelling.
fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().ok()?;
    let unit = lower[digits..].trim_start();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|name| *name == unit)?;
    let bytes = number * 1024f64.powi(power as i32);
    (bytes < 9e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lower(record: &str) -> Result<Lowered, Fault> {
        let around =
            Surroundings { working_dir: "/w", cache_namespace: "ns", input: &mut || (Some(3), true), ssh_index: 1 };
        let mount = RunMount::parse(&Placed::verbatim(record, 0))?;
        let options = mount.expand::<Fault>(&mut |word| Ok(word.replace("$x", "cache").into()))??;
        options.lower(around)
    }

    fn check(record: &str, target: &str, kind: MountKind) {
        let mount = lower(record).map(|lowered| lowered.mount);
        assert_eq!(mount, Ok(Some(Mount { target: target.to_string(), kind })), "{record}");
    }

    fn check_error(record: &str, message: &str) {
        assert_eq!(lower(record).map_err(|fault| fault.message), Err(message.to_string()), "{record}");
    }

    #[test]
    fn errors_point_at_the_field() {
        let check = |record: &str, expect: &str| {
            let place = lower(record).unwrap_err().place;
            assert_eq!(&record[place.start as usize..place.end as usize], expect, "{record}");
        };
        check("type=cache,taget=/x", "taget");
        check("type=tmp,target=/x", "tmp");
        check("type=bind,\"ro=x\",target=/x", "x");
        check("target=/a,mode=755", "755");
        check("type=cache,dst=/a/..", "/a/..");
        check("type=secret", "type=secret");
        check("type=bind,from=$s,target=/x", "$s");
    }

    #[test]
    fn bind_and_tmpfs() {
        let bind = |source: &str, readonly| MountKind::Bind {
            from: Some(3),
            source: source.to_string(),
            readonly,
            from_client: true,
        };
        check("target=/t", "/t", bind("/", true));
        check("type=bind,src=a/../b,dst=sub,rw", "/w/sub", bind("/b", false));
        check("source=/a", "/w", bind("/a", true));
        check("target=/t,ro=false", "/t", bind("/", false));
        check("TYPE=Tmpfs,Target=/t,size=1.5k", "/t", MountKind::Tmpfs { size_bytes: Some(1536) });
        check("size=2GiB,type=tmpfs,target=/t", "/t", MountKind::Tmpfs { size_bytes: Some(2 << 30) });
    }

    #[test]
    fn cache() {
        let cache = |id: &str, sharing, from, mode, readonly| MountKind::Cache {
            id: id.to_string(),
            sharing,
            from,
            source: "/".to_string(),
            mode,
            uid: None,
            gid: None,
            readonly,
        };
        check("type=$x,target=/c/", "/c", cache("ns//c", Sharing::Shared, None, None, false));
        check("type=cache", "/w", cache("ns/.", Sharing::Shared, None, None, false));
        let locked = cache("ns/x", Sharing::Locked, Some(3), Some(0o1777), true);
        check("type=cache,id=x,target=c,sharing=LOCKED,from=a,mode=1777,ro", "/w/c", locked);
    }

    #[test]
    fn secret_and_ssh() {
        let secret =
            |id: &str, required, mode| MountKind::Secret { id: id.to_string(), required, mode, uid: 0, gid: 0 };
        check("type=secret,id=a/b", "/run/secrets/b", secret("a/b", false, 0o400));
        check("required,type=secret,target=x/key,mode=0444", "/w/x/key", secret("key", true, 0o444));
        let both = lower("type=secret,id=a,env=E,target=/f").unwrap();
        assert!(both.mount.is_some() && both.secret_env.is_some());
        let env = SecretEnv { id: "a".into(), name: "E".into(), required: false };
        let only_env = Lowered { mount: None, secret_env: Some(env) };
        assert_eq!(lower("type=secret,source=a,env=E"), Ok(only_env));
        let ssh = MountKind::Ssh { id: "default".into(), required: false, mode: 0o600, uid: 0, gid: 0 };
        check("type=ssh", "/run/buildkit/ssh_agent.1", ssh);
    }

    #[test]
    fn errors() {
        check_error("type=tmp,target=/x", "unsupported mount type \"tmp\" (did you mean tmpfs?)");
        check_error("type=teleport,target=/x", "unsupported mount type \"teleport\"");
        check_error("type=cach,target=/x", "unsupported mount type \"cach\" (did you mean cache?)");
        check_error("type=cache,sharing=generous", "unsupported sharing value \"generous\"");
        check_error("typ=cache", "unexpected key 'typ' in 'typ=cache' (did you mean type?)");
        check_error("flavour", "invalid field 'flavour' must be a key=value pair");
        check_error("target", "invalid field 'target' must be a key=value pair");
        check_error("ro=x", "invalid value for ro: x");
        check_error("required", "unexpected key 'required' for mount type 'bind'");
        check_error("mode=755", "mode not allowed for \"bind\" type mounts");
        check_error("type=cache,mode=9", "invalid value 9 for mode");
        check_error("sharing=shared", "invalid cache sharing set for bind mount");
        check_error("type=secret", "invalid secret mount. one of source, target required");
        check_error("type=secret,id=a,src=b", "both source and id can't be set");
        check_error("type=ssh,src=b", "ssh does not support source");
        check_error("target=/x/..", "invalid mount target \"/\"");
        check_error("from=$s", "'from' doesn't support variable expansion, define alias stage instead");
    }
}
