//! Ops as provenance shows them: in the JSON of BuildKit's LLB (reference/engine.md 8.2, 10.6), as far as there is a word
//! for what kiln does.

use frontend::git_url::redacted;
use frontend::op::{
    Chmod, Copy, Exec, FileAction, FileOp, GitSource, Id, Mount, MountKind, Network, Op, Owner, Security, Sharing,
    Source,
};
use frontend::platform::Platform;
use serde_json::{Value, json};

/// One op of a vertex with that many inputs.
pub fn op(op: &Op, inputs: usize) -> Value {
    match op {
        Op::Source(source) => with_platform("source", self::source(source), platform_of(source)),
        Op::Exec(exec) => with_platform("exec", self::exec(exec), Some(&exec.platform)),
        Op::File(file) => with_platform("file", self::file(file, inputs), Some(&file.platform)),
        Op::Merge => {
            let inputs: Vec<Value> = (0..inputs).map(|input| json!({ "input": input })).collect();
            with_platform("merge", json!({ "inputs": inputs }), None)
        }
    }
}

fn with_platform(kind: &str, op: Value, platform: Option<&Platform>) -> Value {
    let mut whole = json!({ "Op": { kind: op }, "constraints": {} });
    if let Some(platform) = platform {
        whole["platform"] = json!({ "Architecture": platform.architecture, "OS": platform.os });
        if !platform.variant.is_empty() {
            whole["platform"]["Variant"] = platform.variant.clone().into();
        }
    }
    whole
}

fn platform_of(source: &Source) -> Option<&Platform> {
    match source {
        Source::Image { platform, .. } | Source::OciLayout { platform, .. } => Some(platform),
        Source::Local { .. } | Source::Git(_) | Source::Http { .. } => None,
    }
}

fn source(source: &Source) -> Value {
    match source {
        Source::Image { reference, digest, .. } => {
            json!({ "identifier": format!("docker-image://{}", reference.with_digest(digest)) })
        }
        Source::OciLayout { name, digest, .. } => json!({ "identifier": format!("oci-layout://{name}@{digest}") }),
        Source::Local { name } => json!({ "identifier": format!("local://{name}") }),
        Source::Http { url, filename, checksum } => {
            let mut source = json!({ "identifier": redacted(url), "attrs": { "http.filename": filename } });
            if let Some(checksum) = checksum {
                source["attrs"]["http.checksum"] = checksum.clone().into();
            }
            source
        }
        Source::Git(git) => git_source(git),
    }
}

fn git_source(git: &GitSource) -> Value {
    let remote = redacted(&git.remote);
    let without_scheme = remote.split_once("://").map_or(remote.as_str(), |(_, rest)| rest);
    let fragment = match (&git.reference, git.subdir.as_str()) {
        (None, "") => String::new(),
        (reference, "") => format!("#{}", reference.clone().unwrap_or_default()),
        (reference, subdir) => format!("#{}:{subdir}", reference.clone().unwrap_or_default()),
    };
    let mut source =
        json!({ "identifier": format!("git://{without_scheme}{fragment}"), "attrs": { "git.fullurl": remote } });
    if git.keep_git_dir {
        source["attrs"]["git.keepgitdir"] = "true".into();
    }
    if let Some(checksum) = &git.checksum {
        source["attrs"]["git.checksum"] = checksum.clone().into();
    }
    source
}

fn exec(exec: &Exec) -> Value {
    let env: Vec<String> = exec.env.iter().map(|pair| without_passwords(pair)).collect();
    let mut meta = json!({ "args": exec.args, "env": env, "cwd": exec.cwd });
    if !exec.user.is_empty() {
        meta["user"] = exec.user.clone().into();
    }
    if !exec.hostname.is_empty() {
        meta["hostname"] = exec.hostname.as_ref().into();
    }
    let mut mounts = vec![json!({ "input": exec.root.map_or(-1, |input| input as i64), "dest": "/", "output": 0 })];
    mounts.extend(exec.mounts.iter().map(mount));
    let mut op = json!({ "meta": meta, "mounts": mounts });
    match exec.network {
        Network::Default => {}
        Network::Host => op["network"] = 1.into(),
        Network::None => op["network"] = 2.into(),
    }
    if exec.security == Security::Insecure {
        op["security"] = 1.into();
    }
    if !exec.secret_env.is_empty() {
        let secret = |secret: &frontend::op::SecretEnv| json!({ "ID": secret.id, "name": secret.name, "optional": !secret.required });
        op["secretenv"] = exec.secret_env.iter().map(secret).collect();
    }
    op
}

/// `NAME=value` whose value may be a URL with a password in it.
fn without_passwords(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, value)) => format!("{name}={}", redacted(value)),
        None => pair.to_string(),
    }
}

fn mount(mount: &Mount) -> Value {
    let input = |input: &Option<usize>| input.map_or(-1, |input| input as i64);
    let mut said = match &mount.kind {
        MountKind::Bind { from, source, readonly, .. } => {
            json!({ "input": input(from), "selector": source, "readonly": readonly })
        }
        MountKind::Cache { id, sharing, from, source, readonly, .. } => {
            let sharing = match sharing {
                Sharing::Shared => 0,
                Sharing::Private => 1,
                Sharing::Locked => 2,
            };
            json!({
                "input": input(from), "selector": source, "readonly": readonly,
                "mountType": 3, "cacheOpt": { "ID": id, "sharing": sharing },
            })
        }
        MountKind::Tmpfs { size_bytes } => {
            json!({ "input": -1, "mountType": 4, "TmpfsOpt": { "size": size_bytes.unwrap_or_default() } })
        }
        MountKind::Secret { id, required, mode, uid, gid } => json!({
            "input": -1, "mountType": 1,
            "secretOpt": { "ID": id, "uid": uid, "gid": gid, "mode": mode, "optional": !required },
        }),
        MountKind::Ssh { id, required, mode, uid, gid } => json!({
            "input": -1, "mountType": 2,
            "SSHOpt": { "ID": id, "uid": uid, "gid": gid, "mode": mode, "optional": !required },
        }),
    };
    said["dest"] = mount.target.clone().into();
    said["output"] = (-1).into();
    said
}

/// Each action works on what the one before it left: such inputs count on after those of the vertex.
fn file(file: &FileOp, inputs: usize) -> Value {
    let mut actions = vec![];
    for (position, action) in file.actions.iter().enumerate() {
        let input = match position {
            0 => file.base.map_or(-1, |base| base as i64),
            _ => (inputs + position - 1) as i64,
        };
        let is_last = position + 1 == file.actions.len();
        let (kind, second, what) = match action {
            FileAction::Copy(copy) => ("copy", copy.from.map_or(-1, |from| from as i64), self::copy(copy)),
            FileAction::MkFile { name, dest, mode, data, owner, chmod } => {
                let path = if dest.ends_with('/') { format!("{dest}{name}") } else { dest.clone() };
                let mode = octal(chmod).unwrap_or(i64::from(*mode));
                let mut what = json!({ "path": path, "mode": mode, "data": base64_of(data) });
                set_owner(&mut what, owner);
                ("mkfile", -1, what)
            }
            FileAction::MkDir { path, mode, owner, .. } => {
                let mut what = json!({ "path": path, "mode": mode, "makeParents": true });
                set_owner(&mut what, owner);
                ("mkdir", -1, what)
            }
        };
        let output = if is_last { 0 } else { -1 };
        actions.push(json!({ "input": input, "secondaryInput": second, "output": output, "Action": { kind: what } }));
    }
    json!({ "actions": actions })
}

fn copy(copy: &Copy) -> Value {
    let mut what = json!({ "src": copy.source, "dest": copy.dest, "mode": octal(&copy.chmod).unwrap_or(-1) });
    if let Some(Chmod::Symbolic(mode)) = &copy.chmod {
        what["modeStr"] = mode.clone().into();
    }
    if copy.unpack {
        what["attemptUnpackDockerCompatibility"] = true.into();
    }
    if !copy.exclude.is_empty() {
        what["excludePatterns"] = copy.exclude.clone().into();
    }
    set_owner(&mut what, &copy.owner);
    what
}

fn octal(chmod: &Option<Chmod>) -> Option<i64> {
    match chmod {
        Some(Chmod::Octal(mode)) => Some(i64::from(*mode)),
        Some(Chmod::Symbolic(_)) | None => None,
    }
}

fn set_owner(what: &mut Value, owner: &Option<Owner>) {
    let Some(owner) = owner else { return };
    let id = |id: &Id| match id {
        Id::Number(number) => json!({ "User": { "byId": number } }),
        Id::Name(name) => json!({ "User": { "byName": { "name": name } } }),
    };
    what["owner"] = json!({ "user": id(&owner.user) });
    if let Some(group) = &owner.group {
        what["owner"]["group"] = id(group);
    }
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}
