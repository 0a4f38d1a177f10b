//! Gathers the outline of a target from its lowered stages.

use super::args::Globals;
use super::stages::StageGraph;
use crate::outline::{Access, Argument, Outline, Parameters};
use std::collections::{BTreeMap, BTreeSet};

/// The target's own parameters come first, then those of the stages that it needs: of a name, the first counts, as in
/// BuildKit.
pub(super) fn gather(
    plans: &StageGraph,
    globals: &Globals,
    own: &BTreeMap<usize, Parameters>,
    target: usize,
) -> Outline {
    let from = &plans.stages[target].from;
    let description = |name: &String| crate::outline::description(&from.comments, name);
    let mut outline = Outline {
        name: from.name.clone(),
        description: from.name.as_ref().map(description).unwrap_or_default(),
        ..Outline::default()
    };
    let (mut args, mut secrets, mut ssh) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut seen = BTreeSet::new();
    let mut todo = vec![target];
    while let Some(index) = todo.pop() {
        if !seen.insert(index) {
            continue;
        }
        add_args(&mut args, plans, globals, own, index);
        if let Some(own) = own.get(&index) {
            add_accesses(&mut secrets, &own.secrets);
            add_accesses(&mut ssh, &own.ssh);
        }
        if plans.stages[index].replaced_by.is_none() {
            // The base is next, then what is copied from, in the order of the instructions.
            let needed: Vec<usize> = plans.stages[index].origins().filter_map(|origin| origin.stage()).collect();
            todo.extend(needed.into_iter().rev());
        }
    }
    outline.args.extend(args.into_values().cloned());
    outline.secrets.extend(secrets.into_values().cloned());
    outline.ssh.extend(ssh.into_values().cloned());
    outline.args.sort_by_key(|arg| arg.span.start);
    outline.secrets.sort_by_key(|access| access.span.start);
    outline.ssh.sort_by_key(|access| access.span.start);
    outline
}

fn add_accesses<'a>(to: &mut BTreeMap<&'a str, &'a Access>, accesses: &'a [Access]) {
    for access in accesses {
        to.entry(&access.id).or_insert(access);
    }
}

/// The arguments that a stage uses: those that its FROM and its base stages' FROMs name, those that it declares, and
/// global ones that their defaults are made of.
fn add_args<'a>(
    args: &mut BTreeMap<&'a str, &'a Argument>,
    plans: &'a StageGraph,
    globals: &'a Globals,
    own: &'a BTreeMap<usize, Parameters>,
    index: usize,
) {
    let own = own.get(&index);
    let declared = own.map(|own| own.args.as_slice()).unwrap_or_default();
    let inherited = own.map(|own| own.inherited.as_slice()).unwrap_or_default();
    let mut names: Vec<&str> = plans.stages[index].arguments.iter().chain(inherited).map(String::as_str).collect();
    let mut used: BTreeSet<&str> = declared.iter().map(|argument| argument.name.as_str()).collect();
    let mut add = |argument: &'a Argument| {
        args.entry(&argument.name).or_insert(argument);
    };
    declared.iter().rev().for_each(&mut add);
    while let Some(name) = names.pop() {
        if let (true, Some(described)) = (used.insert(name), globals.described.get(name)) {
            add(&described.argument);
            names.extend(described.made_of.iter().map(String::as_str));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::compile::{Answer, CompileRequest, Images, outline};
    use crate::span::SourceText;
    use crate::testing::{image, request, with_args};

    /// Arguments as `line NAME=VALUE description`, then secrets and agents as `line id required`.
    fn check(text: &str, request: &CompileRequest, expect: &[&str]) {
        let parsed = crate::parse::parse(SourceText { name: "Dockerfile".into(), text: text.into() });
        let mut images = Images::new();
        let found = loop {
            match outline(&parsed.dockerfile, request, &images).unwrap() {
                Answer::Found(outline) => break outline,
                Answer::NeedsImages(needed) => images.extend(needed.into_iter().map(|request| {
                    let info = image(&request);
                    ((request.source, request.platform), info)
                })),
            }
        };
        let line = |span| parsed.dockerfile.source.lines(span).0;
        let args = found.args.iter().map(|a| format!("{} {}={} {}", line(a.span), a.name, a.value, a.description));
        let accesses = found.secrets.iter().chain(&found.ssh);
        let accesses = accesses.map(|a| format!("{} {} {}", line(a.span), a.id, a.required));
        let shown: Vec<String> = args.chain(accesses).map(|text| text.trim_end().to_string()).collect();
        assert_eq!(shown, expect, "{text}");
    }

    fn target(name: &str) -> CompileRequest {
        CompileRequest { target: Some(name.into()), ..request() }
    }

    #[test]
    fn arguments() {
        let text = "ARG V=1\nARG W=$V-2\nARG UNUSED=3\nFROM a:$W\n# X is one\nARG X=$BASE\nARG W\nARG Y TARGETARCH";
        check(text, &request(), &["1 V=1", "2 W=1-2", "6 X=1 is one", "8 Y="]);
        check(text, &with_args(&[("W", "9"), ("Y", "8")]), &["6 X=1 is one", "7 W=9", "8 Y=8"]);
        check("ARG A=1\nARG A=$A.2\nFROM a:$A", &request(), &["2 A=1.2"]);
        check("FROM --platform=$BUILDPLATFORM a\nARG A=1\nARG A=2", &request(), &["3 A=2"]);
    }

    #[test]
    fn of_the_stages_that_are_needed() {
        let text = "ARG V=1\nFROM a:$V AS base\nARG B=1\nFROM c AS other\nARG O=1\nFROM base AS app\nARG B=2\n\
                    COPY --from=other /x /\nFROM d AS last\nARG L=1";
        check(text, &target("app"), &["1 V=1", "5 O=1", "7 B=2"]);
        check(text, &target("base"), &["1 V=1", "3 B=1"]);
        check(text, &request(), &["10 L=1"]);
    }

    #[test]
    fn secrets_and_agents() {
        let text = "FROM a AS b\nRUN --mount=type=secret,id=s --mount=type=ssh x\nFROM b\n\
                    RUN --mount=type=secret,target=/x/t,required --mount=type=ssh,id=i,required y\n\
                    RUN --mount=type=secret,id=t --mount=type=secret,id=e,env=E z";
        check(text, &request(), &["2 s false", "4 t true", "5 e false", "2 default false", "4 i true"]);
    }
}
