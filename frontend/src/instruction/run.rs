//! `RUN [flags] command` (reference/dockerfile.md 1.7, 2.4).

use super::files::{FileStep, strip_tabs};
use super::flags::{Flags, Kind};
use super::run_mount::{Fault, RunMount, Surroundings};
use super::{CommandLine, fail_at};
use crate::ast::{Heredoc, Node};
use crate::diagnostic::Diagnostic;
use crate::op::{Exec, InputIndex, MountKind, Network, Op, Security};
use crate::outline::Access;
use crate::path;
use crate::stage::{LayerOf, Lowering, Tree, with_upper_keyword};
use crate::suggest::{Case, did_you_mean};
use crate::words::Lexer;
use std::borrow::Cow;
use std::sync::Arc;

/// The fields of a RUN.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What is run.
    pub script: Script,
    /// `--mount`, in order.
    pub mounts: Vec<RunMount>,
    /// `--network`; `None` is what the client says.
    pub network: Option<Network>,
    /// `--security`
    pub security: Security,
}

/// The forms of a RUN.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    /// A command; heredocs that the shell itself reads are in its text.
    Command(CommandLine),
    /// A heredoc that stands for the command: the argument of the shell, or with `#!` a program of its own.
    Document {
        /// Delimiter.
        name: String,
        /// With tabs stripped.
        body: String,
        /// As progress shows it.
        summary: String,
    },
}

/// What to do without devices.
const DEVICE_HELP: &str = "kiln passes no CDI devices to RUN: take --device out; a step that needs /dev/kvm, /dev/fuse or loop \
                           devices gets them with RUN --security=insecure and --allow security.insecure";

const FLAGS: &[(&str, Kind)] =
    &[("mount", Kind::List), ("network", Kind::Text), ("security", Kind::Text), ("device", Kind::List)];

impl Run {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Run, Diagnostic> {
        let flags = Flags::check(node, FLAGS)?;
        let mut mounts = Vec::with_capacity(node.flags.len());
        for flag in node.flags.iter().filter(|flag| flag.name == "mount") {
            let Some(record) = &flag.value else { continue };
            let mount = RunMount::parse(record);
            mounts.push(mount.map_err(|fault| Diagnostic::error(fault.message, node.span).label(fault.place, fault.remark))?);
        }
        if let Some(device) = node.flags.iter().find(|flag| flag.name == "device") {
            let message = "device feature is only supported in Dockerfile frontend 1.14.0-labs or later";
            return Err(Diagnostic::error(message, node.span).label(device.span, "").help(DEVICE_HELP));
        }
        let network = match flags.text("network") {
            None => None,
            Some(written) => match written.as_str() {
                "default" => None,
                "none" => Some(Network::None),
                "host" => Some(Network::Host),
                other => {
                    let message = format!("invalid network mode {other:?}");
                    let message = did_you_mean(message, other, ["default", "none", "host"], Case::Sensitive);
                    return fail_at(node, written, message, "default, none or host");
                }
            },
        };
        let security = match flags.text("security") {
            None => Security::Sandbox,
            Some(written) => match written.as_str() {
                "sandbox" => Security::Sandbox,
                "insecure" => Security::Insecure,
                other => {
                    let message = format!("security {other:?} is not valid");
                    let message = did_you_mean(message, other, ["sandbox", "insecure"], Case::Sensitive);
                    return fail_at(node, written, message, "sandbox or insecure");
                }
            },
        };
        let script = match node.heredocs.as_slice() {
            [] => Script::Command(CommandLine::parse(node, &node.rest)?),
            [heredoc] if node.rest.trim() == heredoc.token.trim() => document(heredoc),
            heredocs => Script::Command(CommandLine::Shell(with_bodies(&node.rest, heredocs))),
        };
        Ok(Run { script, mounts, network, security })
    }

    /// Adds the step.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let args = self.args(at)?;
        let network = self.network.unwrap_or(at.settings.request.network);
        self.check_entitlements(at)?;
        let (root, mut inputs) = at.root_input();
        let mut exec = Exec {
            root,
            args,
            env: Arc::default(),
            cwd: path::clean(&at.stage.config.config.working_dir),
            user: at.stage.config.config.user.clone(),
            platform: at.stage.platform.clone(),
            hostname: at.settings.hostname.clone(),
            network,
            security: self.security,
            mounts: vec![],
            secret_env: vec![],
            ulimits: at.settings.request.ulimits.clone(),
            shm_size_bytes: at.settings.request.shm_size_bytes,
            cgroup_parent: at.settings.request.cgroup_parent.clone(),
            extra_hosts: at.settings.request.extra_hosts.clone(),
            proxy_env: proxy_env(at),
            script: self.piped_script(at),
        };
        self.lower_mounts(at, &mut exec, &mut inputs)?;
        note_accesses(at, &exec);
        exec.env = step_env(at, &exec);
        let created_by = created_by(at, &exec.args);
        let name = self.display(at, &exec);
        let name = at.step_name(&name);
        at.stage.root = Some(at.add(Op::Exec(Box::new(exec)), inputs, name));
        at.history(created_by, LayerOf::Step);
        Ok(())
    }

    /// Program and arguments.
    fn args(&self, at: &Lowering<'_>) -> Result<Vec<String>, Diagnostic> {
        match &self.script {
            Script::Command(CommandLine::Exec(words)) if words.is_empty() => {
                Err(at.error("arguments are required").help("RUN [] runs nothing"))
            }
            Script::Command(line) => Ok(line.with_shell(at.stage)),
            Script::Document { body, .. } => {
                let text = self.piped_script(at).map_or_else(|| body.clone(), |(name, _)| format!("/dev/pipes/{name}"));
                Ok(at.stage.in_shell(text))
            }
        }
    }

    /// A document that is a program of its own: its name and content.
    fn piped_script(&self, at: &Lowering<'_>) -> Option<(String, String)> {
        match &self.script {
            Script::Document { name, body, .. } if body.starts_with("#!") && at.stage.config.os != "windows" => {
                Some((name.clone(), body.clone()))
            }
            Script::Document { .. } | Script::Command(_) => None,
        }
    }

    fn check_entitlements(&self, at: &Lowering<'_>) -> Result<(), Diagnostic> {
        let request = at.settings.request;
        let needed = [
            (self.network == Some(Network::Host) && request.network != Network::Host, "network.host"),
            (self.security == Security::Insecure, "security.insecure"),
        ];
        for (is_needed, entitlement) in needed {
            if is_needed && !request.entitlements.contains(entitlement) {
                return Err(at
                    .error(format!("{entitlement} is not allowed"))
                    .help(format!("grant it with --allow {entitlement}")));
            }
        }
        Ok(())
    }

    fn lower_mounts(
        &self,
        at: &mut Lowering<'_>,
        exec: &mut Exec,
        inputs: &mut Vec<solver::graph::Edge>,
    ) -> Result<(), Diagnostic> {
        if self.mounts.is_empty() {
            return Ok(());
        }
        exec.mounts.reserve_exact(self.mounts.len());
        let namespace = at.settings.build_arg("BUILDKIT_CACHE_MOUNT_NS").unwrap_or_default();
        for (position, mount) in self.mounts.iter().enumerate() {
            let tree: Option<Tree> = at.trees.get(position).cloned().flatten();
            let ssh_index = exec.mounts.iter().filter(|mount| matches!(mount.kind, MountKind::Ssh { .. })).count();
            let fail = |at: &Lowering<'_>, fault: Fault| at.error(fault.message).label(fault.place, fault.remark);
            let options = mount.expand(&mut |word| at.expand(word))?.map_err(|fault| fail(at, fault))?;
            let mut input = || -> (Option<InputIndex>, bool) {
                let tree = tree.clone().unwrap_or_else(|| at.context());
                (tree.edge.map(|edge| FileStep::input(inputs, edge)), tree.from_client)
            };
            let around = Surroundings {
                working_dir: &exec.cwd,
                cache_namespace: namespace,
                input: &mut input,
                ssh_index,
            };
            let lowered = options.lower(around).map_err(|fault| fail(at, fault))?;
            exec.mounts.extend(lowered.mount);
            exec.secret_env.extend(lowered.secret_env);
        }
        Ok(())
    }

    /// The text with known variables replaced, secret ones by asterisks.
    fn display<'a>(&self, at: &Lowering<'a>, exec: &Exec) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(at.command.text.as_str());
        if let Script::Document { summary, .. } = &self.script {
            text = format!("{text} ({summary})").into();
        }
        let is_secret = |name: &str| exec.secret_env.iter().any(|secret| secret.name == name);
        let env = |name: &str| match is_secret(name) {
            true => Some("****".to_string()),
            false => at.stage.env.get(name).map(str::to_string),
        };
        with_upper_keyword(at.settings.lexer.expand_for_display(text, &env))
    }
}

fn document(heredoc: &Heredoc) -> Script {
    let body = if heredoc.strip_tabs { strip_tabs(&heredoc.body) } else { heredoc.body.clone() }.into_string();
    let mut lines = heredoc.body.trim().lines();
    let mut summary = lines.next().unwrap_or_default().to_string();
    if lines.next().is_some() {
        summary.push_str("...");
    }
    Script::Document { name: heredoc.name.clone(), body, summary }
}

/// The line and the heredocs as they stand in the Dockerfile, for the shell to read.
fn with_bodies(line: &str, heredocs: &[Heredoc]) -> String {
    heredocs.iter().fold(line.trim().to_string(), |text, heredoc| format!("{text}\n{}{}", heredoc.body, heredoc.name))
}

/// For the outline: secrets and agents.
fn note_accesses(at: &mut Lowering<'_>, exec: &Exec) {
    let span = at.command.span;
    for mount in &exec.mounts {
        match &mount.kind {
            MountKind::Secret { id, required, .. } => {
                let access = Access { id: id.clone(), required: *required, span };
                at.stage.parameters.secrets.push(access);
            }
            MountKind::Ssh { id, required, .. } => {
                let access = Access { id: id.clone(), required: *required, span };
                at.stage.parameters.ssh.push(access);
            }
            MountKind::Bind { .. } | MountKind::Cache { .. } | MountKind::Tmpfs { .. } => {}
        }
    }
    for secret in &exec.secret_env {
        let access = Access { id: secret.id.clone(), required: secret.required, span };
        at.stage.parameters.secrets.push(access);
    }
}

/// The environment of the step. Secrets are set when it runs.
fn step_env(at: &Lowering<'_>, exec: &Exec) -> Arc<Vec<Arc<str>>> {
    let env = &at.stage.env;
    let socket = exec.mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
    if let Some(socket) = socket
        && env.get("SSH_AUTH_SOCK").is_none()
    {
        let mut env = env.clone();
        env.set("SSH_AUTH_SOCK", &socket.target);
        return env.shared_list();
    }
    env.shared_list()
}

/// The proxies of `--build-arg`, each in upper and lower case. Where both spellings are given, the lower one counts.
fn proxy_env(at: &Lowering<'_>) -> Vec<String> {
    let mut env = vec![];
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"] {
        // Byte order puts lower case last.
        let mut given = at.settings.request.build_args.iter().rev();
        if let Some((_, value)) = given.find(|(key, _)| key.eq_ignore_ascii_case(name)) {
            env.push(format!("{name}={value}"));
            env.push(format!("{}={value}", name.to_lowercase()));
        }
    }
    env
}

/// `RUN |2 a=1 b=2 /bin/sh -c make # buildkit`: before the command each declared argument, with the value that the step
/// sees.
fn created_by(at: &Lowering<'_>, command: &[String]) -> String {
    let mut text = String::with_capacity(64 + command.iter().map(String::len).sum::<usize>());
    text.push_str("RUN");
    let args = at.stage.args.iter();
    if args.len() > 0 {
        text.extend([" |", &args.len().to_string()]);
    }
    for arg in args {
        let value = at.stage.env.get(&arg.name).or(arg.value.as_deref()).unwrap_or_default();
        text.extend([" ", &arg.name, "=", value]);
    }
    for word in command {
        text.extend([" ", word]);
    }
    text.push_str(" # buildkit");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::CompileRequest;
    use crate::op::Sharing;
    use crate::testing::*;

    fn args(text: &str) -> Vec<String> {
        last_exec(&plan(&format!("FROM a\n{text}"))).args.clone()
    }

    #[test]
    fn forms() {
        assert_eq!(args("RUN a  \"b\" \\\n  c"), ["/bin/sh", "-c", "a  \"b\"   c"]);
        assert_eq!(args("RUN [\"a\", \"$B\"]"), ["a", "$B"]);
        assert_eq!(args("RUN"), ["/bin/sh", "-c", ""]);
        assert_eq!(args("SHELL [\"p\", \"-c\"]\nRUN <<E\nx\n y\nE"), ["p", "-c", "x\n y\n"]);
        assert_eq!(args("RUN <<-E\n\tx\nE"), ["/bin/sh", "-c", "x\n"]);
        assert_eq!(args("RUN cat <<A <<'B' >/x\na\nA\nb\nB"), [
            "/bin/sh",
            "-c",
            "cat <<A <<'B' >/x\na\nA\nb\nB",
        ]);
        check_errors("FROM a\nRUN []", &["arguments are required"]);
        check_errors("FROM a\nRUN [1]", &[super::super::NOT_STRINGS]);
    }

    #[test]
    fn programs() {
        let plan = plan("FROM a\nRUN <<-P\n\t#!/bin/x\n\ty\nP");
        let exec = last_exec(&plan);
        assert_eq!(exec.args, ["/bin/sh", "-c", "/dev/pipes/P"]);
        assert_eq!(exec.script, Some(("P".into(), "#!/bin/x\ny\n".into())));
        assert_eq!(steps(&plan)[1], "[2/2] RUN <<-P (#!/bin/x...)");
    }

    #[test]
    fn history() {
        check_history("FROM a\nRUN <<E\nx\nE\nRUN [\"a\", \"b c\"]", &[
            "RUN /bin/sh -c x\n # buildkit",
            "RUN a b c # buildkit",
        ]);
        check_history("FROM a\nARG B=1 A\nARG B=2\nENV A=e\nRUN x", &[
            "ARG B=1 A (empty)",
            "ARG B=2 (empty)",
            "ENV A=e (empty)",
            "RUN |2 B=2 A=e /bin/sh -c x # buildkit",
        ]);
    }

    #[test]
    fn names() {
        let check = |text: &str, expect: &str| {
            let names = steps(&plan(&format!("FROM scratch\nENV A=1\n{text}")));
            assert_eq!(names.last().map(String::as_str), Some(expect), "{text}");
        };
        check("run echo \"$A\" '$A' ${B} \\\n  # note\n  c", "[1/1] RUN echo \"1\" '$A' ${B}   c");
        check("RUN  --network=none \\\n   x", "[1/1] RUN  --network=none    x");
        check("RUN <<E\n\n one \ntwo\nE", "[1/1] RUN <<E (one ...)");
        check("RUN --mount=type=secret,id=s,env=A echo $A", "[stage-0 1/1] RUN --mount=type=secret,id=s,env=A echo ****");
    }

    #[test]
    fn environment() {
        let request = CompileRequest {
            extra_hosts: vec![("h".into(), "1.2.3.4".into())],
            network: Network::None,
            ..with_args(&[("http_proxy", "low"), ("HTTP_PROXY", "up"), ("BUILDKIT_SANDBOX_HOSTNAME", "box")])
        };
        let plan = plan_with("FROM a\nWORKDIR w\nRUN x", &request);
        let exec = last_exec(&plan);
        assert_eq!(env(exec), ["PATH=/bin", "BASE=1"]);
        assert_eq!(exec.proxy_env, ["HTTP_PROXY=low", "http_proxy=low"]);
        assert_eq!((exec.cwd.as_str(), exec.hostname.as_ref()), ("/w", "box"));
        assert_eq!((exec.network, exec.extra_hosts.len()), (Network::None, 1));
        let own = plan_with("FROM a\nRUN --mount=type=ssh --network=host x", &CompileRequest {
            entitlements: ["network.host".to_string()].into(),
            ..request
        });
        assert_eq!(last_exec(&own).network, Network::Host);
        assert_eq!(env(last_exec(&own))[2], "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0");
    }

    #[test]
    fn mounts() {
        let request = with_args(&[("BUILDKIT_CACHE_MOUNT_NS", "ns")]);
        let text = "FROM a AS s\nFROM b\nARG D=/d\nRUN --mount=from=s,target=$D --mount=target=/c,source=x \
                    --mount=type=cache,target=/k --mount=type=cache,from=S,target=/l --mount=from=z,target=/z x";
        let plan = plan_with(text, &request);
        let exec = last_exec(&plan);
        let inputs = plan.graph.inputs(plan.results[0].root.unwrap().vertex);
        assert_eq!(inputs.len(), 4, "base, stage s, the context and image z, each once");
        let kinds: Vec<_> = exec.mounts.iter().map(|mount| (mount.target.as_str(), mount.kind.clone())).collect();
        let bind = |from, source: &str, from_client| MountKind::Bind {
            from: Some(from),
            source: source.into(),
            readonly: true,
            from_client,
        };
        let cache = |id: &str, from| MountKind::Cache {
            id: id.into(),
            sharing: Sharing::Shared,
            from,
            source: "/".into(),
            mode: None,
            uid: None,
            gid: None,
            readonly: false,
        };
        assert_eq!(kinds, [
            ("/d", bind(1, "/", false)),
            ("/c", bind(2, "/x", true)),
            ("/k", cache("ns//k", None)),
            ("/l", cache("ns//l", Some(1))),
            ("/z", bind(3, "/", false)),
        ]);
    }

    #[test]
    fn errors() {
        let check = |text: &str, expect: &str| check_errors(&format!("FROM a AS a\n{text}"), &[expect]);
        check("RUN --network=carrier x", "invalid network mode \"carrier\"");
        check("RUN --network=hots x", "invalid network mode \"hots\" (did you mean host?)");
        check("RUN --network=host x", "network.host is not allowed");
        check("RUN --security=insecure x", "security.insecure is not allowed");
        check("RUN --security=none x", "security \"none\" is not valid");
        check("RUN --device=x y", "device feature is only supported in Dockerfile frontend 1.14.0-labs or later");
        check("RUN --mount x", "missing a value on flag: --mount");
        check("RUN --network=none --network=none x", "duplicate flag specified: --network");
        check("RUN --mount=target=${X:?m} x", "failed to process \"${X:?m}\": X: m");
        check("RUN --mount=from=b,target=/x y\nFROM c AS b\nFROM a", "cannot mount from stage \"b\" to \"/x\", stage needs to be defined before current command");
        check("RUN --mount=from=A/B,target=/x y", "failed to parse stage name \"A/B\": invalid reference format: repository name (B) must be lowercase");
    }
}
