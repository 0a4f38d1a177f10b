//! Where kiln's own rules speak, and, more important, where they must not. The plain cases are in docs/checks.md, whose
//! examples are run by `lint/documented.rs`.

use crate::compile::{CheckOptions, CompileRequest};
use crate::diagnostic::Diagnostic;
use crate::lint::config::OwnChecks;
use crate::span::SourceText;
use crate::stand_in;
use crate::testing::*;

/// Advice on a text, as `line Rule`.
fn found(text: &str, own: OwnChecks) -> Vec<String> {
    let source = SourceText { name: "Dockerfile".into(), text: text.into() };
    let request = CompileRequest { checks: CheckOptions { own, ..CheckOptions::default() }, ..request() };
    let found = stand_in::check(source.clone(), &request, stand_in::image);
    assert_eq!(found.errors, [], "{text}");
    let show = |d: &Diagnostic| {
        let line = d.span.map_or(0, |span| source.lines(span).0);
        format!("{line} {}", d.rule.unwrap_or_default())
    };
    found.advice.iter().map(show).collect()
}

fn advice(text: &str, expect: &[&str]) {
    assert_eq!(found(text, OwnChecks::Advice), expect, "{text}");
}

/// Advice on one RUN in a stage of its own.
fn run(text: &str, expect: &[&str]) {
    let found = found(&format!("FROM a:1\n{text}"), OwnChecks::Advice);
    let found: Vec<&str> = found.iter().map(|found| found.split_once(' ').unwrap().1).collect();
    assert_eq!(found, expect, "{text}");
}

#[test]
fn apt_get() {
    const CLEAN: &str = "&& rm -rf /var/lib/apt/lists/*";
    let check = |install: &str, expect: &[&str]| run(&format!("RUN apt-get update && {install} {CLEAN}"), expect);
    check("apt-get install -y --no-install-recommends a", &[]);
    check("apt-get -yqq --no-install-recommends install a", &[]);
    check("apt-get install -qq --no-install-recommends a", &[]);
    check(
        "DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Options::=--force-confnew install -y --no-install-recommends a",
        &[],
    );
    check("yes | apt-get install --no-install-recommends a", &[]);
    check("xargs -a list apt-get install -y --no-install-recommends", &[]);
    check("apt-get install $OPTIONS a", &[]);
    check("apt-get install -y ./a.deb", &[]);
    check("apt-get install a", &["AptGetMissingYes", "AptInstallRecommends"]);
    check("apt-get -q install a", &["AptGetMissingYes", "AptInstallRecommends"]);
    check("if [ -n \"$X\" ]; then apt-get install a; fi", &["AptGetMissingYes", "AptInstallRecommends"]);
    check("sudo apt-get purge a", &["AptGetMissingYes", "SudoInRun"]);
    check("apt-get remove -y a", &[]);
    check("echo 'apt-get install a'", &[]);
    check("apt list --installed", &["AptInsteadOfAptGet"]);
    run(
        "RUN echo 'APT::Get::Assume-Yes \"true\"; APT::Install-Recommends \"0\";' >/etc/apt/apt.conf.d/90x\n\
         RUN apt-get update && apt-get install a && apt-get distclean",
        &[],
    );
    run("RUN [\"apt-get\", \"install\", \"a\"]", &["AptGetMissingYes", "AptInstallRecommends"]);
    run(
        "RUN bash -c 'apt-get update && apt-get install a'",
        &["AptGetMissingYes", "AptInstallRecommends", "AptListsKept"],
    );
    run("RUN <<E\napt-get install a\nE", &["AptGetMissingYes", "AptInstallRecommends"]);
    run("RUN <<E\n#!/usr/bin/env python3\napt-get install a\nE", &[]);
    run("RUN <<E\n#!/bin/bash -e\napt-get install a\nE", &["AptGetMissingYes", "AptInstallRecommends"]);
    run("SHELL [\"pwsh\", \"-c\"]\nRUN apt-get install a", &[]);
    run("SHELL [\"conda\", \"run\", \"/bin/bash\", \"-c\"]\nRUN apt list", &["AptInsteadOfAptGet"]);
}

#[test]
fn apt_lists() {
    let install = "apt-get install -y --no-install-recommends a";
    run(&format!("RUN apt-get update && {install}"), &["AptListsKept"]);
    run(&format!("RUN --mount=type=cache,target=/var/lib/apt/lists apt-get update && {install}"), &[]);
    run(&format!("RUN --mount=type=tmpfs,target=/var/lib/apt/ apt-get update && {install}"), &[]);
    run(&format!("ARG D=/var/lib\nRUN --mount=type=cache,target=$D/apt apt-get update && {install}"), &[]);
    run(&format!("RUN --mount=type=cache,target=/var/cache/apt apt-get update && {install}"), &["AptListsKept"]);
    run(&format!("RUN apt-get update && {install} && apt-get clean && rm -rf /var/lib/apt/lists /tmp/x"), &[]);
    run("RUN apt-get update", &["AptUpdateAlone"]);
    run("RUN apt-get update && ./install.sh", &[]);
    // In a stage that is only copied from, size does not matter.
    let text = format!("FROM a:1 AS build\nRUN apt-get update && {install}\nFROM b:1\nCOPY --from=build /x /x");
    advice(&text, &[]);
    let text = format!("FROM a:1 AS base\nRUN apt-get update && {install}\nFROM base\nCMD [\"x\"]");
    advice(&text, &["2 AptListsKept"]);
}

#[test]
fn other_package_managers() {
    run("RUN apk add --no-cache a && apk --no-cache add b", &[]);
    run("RUN apk add --update a && rm -rf /var/cache/apk/*", &[]);
    run("RUN --mount=type=cache,target=/var/cache/apk apk add a", &[]);
    run("RUN apk add -U --virtual .build a", &["ApkCacheKept"]);
    run("RUN apk del a", &[]);
    run("RUN yum -y install a && yum clean all && rm -rf /var/cache/yum", &[]);
    run("RUN dnf install -y --setopt x=y a", &["YumCacheKept"]);
    run("RUN --mount=type=cache,target=/var/cache/dnf dnf install -y a", &[]);
    run("RUN microdnf install a && microdnf clean all", &["YumMissingYes"]);
    run("RUN zypper -n in a", &[]);
    run("RUN zypper in a", &["ZypperMissingYes"]);
    run("RUN pip3.12 install a && python3 -m pip install b", &["PipCacheKept", "PipCacheKept"]);
    run("RUN pip install --no-cache-dir a && PIP_NO_CACHE_DIR=1 pip install a", &[]);
    run("ENV PIP_NO_CACHE_DIR=1\nRUN pip install a", &[]);
    run("ENV PIP_CACHE_DIR=/c\nRUN --mount=type=cache,target=/c pip install a", &[]);
    run("RUN --mount=type=cache,target=/root/.cache pip install a", &[]);
    run("RUN pip install a && rm -rf ~/.cache/pip", &[]);
    run("RUN python -m venv x && pip config set global.no-cache-dir true && pip install a", &[]);
    run("RUN pip install --no-cache a", &[]);
    run("RUN pip --version && pip download a", &[]);
    advice("FROM a:1 AS b\nRUN pip install a\nFROM c:1\nCOPY --from=b /x /", &[]);
    run("RUN npm install", &[]);
    run("COPY package.json package-lock.json ./\nRUN npm i", &["NpmInstallInsteadOfCi"]);
    run("COPY package*.json ./\nRUN npm install -g x && npm install y && npm ci", &[]);
}

#[test]
fn working_directory_and_state() {
    run("RUN cd /app && make", &["CdInsteadOfWorkdir"]);
    run("RUN cd /app && make && make install", &[]);
    run("RUN cd /app && make && make x\nRUN cd /app && make && make y", &["CdInsteadOfWorkdir"]);
    run("RUN cd /tmp && make", &[]);
    run("RUN cd $X && make", &[]);
    run("RUN cd /a && make && cd ..", &["RunStateLost"]);
    run("RUN make && cd /x", &["RunStateLost"]);
    run("RUN (cd /x && make)", &[]);
    run("RUN test -d /x || cd /y", &[]);
    run("RUN X=1", &["RunStateLost"]);
    run("RUN X=$(make)", &[]);
    run("RUN X=1 make", &[]);
    run("RUN export PATH=/x:$PATH", &["RunStateLost"]);
    run("RUN export A=b && make $A", &[]);
    run("RUN . venv/bin/activate", &["RunStateLost"]);
    run("RUN . ./install && source ./build", &[]);
    run("RUN echo 'export X=1' >> ~/.bashrc", &[]);
    run("RUN set -o pipefail", &["RunStateLost"]);
    run("RUN service x start && psql", &[]);
    run("RUN x && /etc/init.d/x start", &["ServiceInRun"]);
    run("RUN systemctl enable x", &[]);
}

#[test]
fn pipes() {
    run("RUN curl x | sh", &["DownloadPipedUnchecked"]);
    run("RUN wget -qO- x | sudo -E bash -", &["DownloadPipedUnchecked", "SudoInRun"]);
    run("RUN curl x | sed s/a/b/ | sh", &["DownloadPipedUnchecked"]);
    run("RUN X=$(curl x | jq .y) && echo $X", &["DownloadPipedUnchecked"]);
    run("RUN curl x | tar xz && curl x | gpg --dearmor -o y", &[]);
    run("RUN curl x | grep y", &[]);
    run("RUN set -eo pipefail; curl x | sh", &[]);
    run("RUN bash -o pipefail -c 'curl x | sh'", &[]);
    run("SHELL [\"/bin/bash\", \"-eo\", \"pipefail\", \"-c\"]\nRUN curl x | bash", &[]);
    run("RUN curl x > y && sh y", &[]);
    run("RUN command -v curl | sh", &[]);
}

#[test]
fn variables() {
    let check = |text: &str, expect: &[&str]| advice(&format!("ARG V=1\nFROM a:$V\n{text}"), expect);
    check("RUN echo $V", &["3 GlobalArgInRun"]);
    check("RUN echo \"${V}\" $(x $V)", &["3 GlobalArgInRun"]);
    check("RUN cat <<E\n$V\nE", &["3 GlobalArgInRun"]);
    check("RUN cat <<'E'\n$V\nE", &[]);
    check("RUN echo '$V' \\$V ${V:-2}", &[]);
    check("ARG V\nRUN echo $V", &[]);
    check("ENV V=2\nRUN echo $V", &[]);
    check("RUN V=2; echo $V", &[]);
    check("RUN export V=2 && echo $V", &[]);
    check("RUN for V in a b; do echo $V; done", &[]);
    check("RUN [\"echo\", \"$V\"]", &[]);
    advice("ARG HTTP_PROXY=x\nFROM a:1\nRUN echo $HTTP_PROXY", &[]);
    // What an image brings is known.
    advice("ARG BASE=x\nFROM a:1\nRUN echo $BASE", &[]);
}

#[test]
fn comments_in_continuations() {
    run("RUN echo a # b \\\n && echo c", &["CommentHidesCommands"]);
    run("RUN echo a \\\n # b\n && echo c # d", &[]);
    run("RUN echo a#b \\\n && echo '# c' \\\n && echo d", &[]);
    run("RUN <<E\necho a # b \\\necho c\nE", &[]);
    run("RUN echo a # b", &[]);
    run("HEALTHCHECK CMD curl x # y \\\n || exit 1", &["CommentHidesCommands"]);
}

#[test]
fn copies() {
    advice("FROM a:1\nCOPY . /x\nRUN apk add --no-cache a", &["2 CopyBeforeDependencies"]);
    advice(
        "FROM a:1\nCOPY . /x\nRUN pip install --no-cache-dir -r /x/requirements.txt\nRUN npm ci",
        &["2 CopyBeforeDependencies"],
    );
    advice("FROM a:1\nCOPY . /x\nRUN pip install --no-cache-dir /x", &[]);
    advice("FROM a:1\nCOPY list /x\nRUN npm ci\nCOPY . /x\nRUN npm ci --omit=dev", &[]);
    advice("FROM a:1 AS b\nFROM a:1\nCOPY --from=b . /x\nRUN npm ci", &[]);
    advice("FROM a:1\n# check=skip=CopyBeforeDependencies\nCOPY . /x\nRUN npm ci", &[]);
    advice(
        "FROM a:1\nADD x.tgz /\nADD https://a/b /\nADD $X /\nADD *.cfg /\nADD --checksum=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef https://a/b /",
        &[],
    );
    advice("FROM a:1\nADD x y /", &["2 AddInsteadOfCopy"]);
    advice("FROM a:1\nCOPY --chmod=0777 x /", &["2 ChmodWorldWritable"]);
    run("RUN chmod 1777 /x && chmod 777 /tmp && chmod +x /y && chmod -R 755 /z", &[]);
    run("RUN chmod -R a+rwx /z", &["ChmodWorldWritable"]);
}

#[test]
fn layers_users_and_bases() {
    run("RUN make\nRUN rm -rf /var/cache/x /tmp/*", &["CleanupInOwnLayer"]);
    run("RUN make\nRUN rm -rf /etc/nginx/conf.d/default.conf", &[]);
    run("RUN rm -rf /tmp/*", &[]);
    run("RUN make\nRUN apt-get clean && rm -rf /var/lib/apt/lists/*", &["CleanupInOwnLayer"]);
    advice("FROM a:1\nUSER x\nUSER 0:0", &["3 LastUserRoot"]);
    advice("FROM a:1 AS b\nUSER root\nFROM b\nUSER x", &[]);
    advice("FROM a:1 AS b\nUSER root\nFROM c:1\nCOPY --from=b /x /", &[]);
    advice("FROM a:1\nUSER root", &["2 LastUserRoot"]);
    run("RUN useradd -u 1000 x && useradd -lu 1000000 y && adduser -u 1000000 z", &[]);
    run("RUN useradd -u 1000000 x", &["UseraddHighUid"]);
    advice("FROM a:latest", &["1 UnpinnedBaseImage"]);
    advice("ARG T=latest\nFROM a:$T", &["2 UnpinnedBaseImage"]);
    advice(
        "FROM scratch\nFROM a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef AS b\nFROM b",
        &[],
    );
}

#[test]
fn switches() {
    let text =
        |directive: &str| format!("{directive}FROM a:1\nRUN apt-get install -y --no-install-recommends a && cd /x");
    let check = |directive: &str, own: OwnChecks, expect: &[&str]| {
        assert_eq!(found(&text(directive), own), expect, "{directive}");
    };
    check("", OwnChecks::Off, &[]);
    check("", OwnChecks::Advice, &["2 RunStateLost"]);
    check("", OwnChecks::Warnings, &[]);
    check("# check=skip=RunStateLost\n", OwnChecks::Advice, &[]);
    check("# check=skip=kiln\n", OwnChecks::Advice, &[]);
    advice("FROM a:1\n# check=skip=RunStateLost\nRUN cd /x", &[]);
    // In a build, a rule speaks if it is asked for by name.
    let warning = "2 RunStateLost: `cd /x` has no effect after this RUN, for the next one is a new shell: use WORKDIR";
    check_warnings("FROM a:1\nRUN cd /x", &request(), &[]);
    check_warnings("# check=experimental=all\nFROM a:1\nRUN cd /x", &request(), &[]);
    check_warnings("# check=experimental=kiln\nFROM a:1\nRUN cd /x", &request(), &[&warning.replace("2 ", "3 ")]);
    check_warnings(
        "FROM a:1\n# check=experimental=RunStateLost\nRUN cd /x",
        &request(),
        &[&warning.replace("2 ", "3 ")],
    );
    let several = CompileRequest { platforms: vec![platform("linux/amd64"), platform("linux/arm64")], ..request() };
    let once = "FROM a:1\n# check=experimental=RunStateLost\nRUN cd /x";
    check_warnings(once, &several, &[&warning.replace("2 ", "3 ")]);
    check_warnings(
        "# check=experimental=RunStateLost;error=true\nFROM a:1\nRUN cd /x",
        &request(),
        &[&warning.replace("2 ", "3 "), "0 error: lint violation found for rules: RunStateLost"],
    );
}
