//! Each rule once, and how rules are switched off.

use crate::compile::CompileRequest;
use crate::span::SourceText;
use crate::testing::*;

fn check(text: &str, expect: &[&str]) {
    check_warnings(text, &request(), expect);
}

#[test]
fn about_the_text() {
    check("FROM a AS Base", &["1 StageNameCasing: Stage name 'Base' should be lowercase"]);
    check("FROM a as b", &["1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"]);
    check("from a AS b", &["1 FromAsCasing: 'AS' and 'from' keywords' casing do not match"]);
    check("FROM a\nRUN x \\\n\n  y", &["4 NoEmptyContinuation: Empty continuation line"]);
    let should = |word: &str, casing: &str| {
        format!(
            "ConsistentInstructionCasing: Command '{word}' should match the case of the command majority ({casing})"
        )
    };
    check("FROM a\nrun x", &[&format!("2 {}", should("run", "uppercase"))]);
    check("from a\nrun x\nRun y", &[&format!("3 {}", should("Run", "lowercase"))]);
    check(
        "FROM a AS x\nFROM a AS x",
        &["2 DuplicateStageName: Duplicate stage name \"x\", stage names should be unique"],
    );
    check(
        "FROM a AS context",
        &["1 ReservedStageName: Stage name should not use the same name as reserved stage \"context\""],
    );
    check(
        "FROM a\nMAINTAINER me",
        &["2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label"],
    );
}

#[test]
fn about_from_lines() {
    check(
        "ARG VER=1\nFROM a:${VAR:-1}\nFROM a:1$VRE",
        &["3 UndefinedArgInFrom: FROM argument 'VRE' is not declared (did you mean VER?)"],
    );
    check(
        "FROM --platform=$TARGETPLATFORM a",
        &[
            "1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the \
         default behavior",
        ],
    );
    check(
        "FROM --platform=linux/arm64 a\nFROM --platform=linux/arm64 a AS arm64-base",
        &["1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\""],
    );
    check_warnings(
        "ARG T\nFROM a:${T}",
        &with_args(&[("T", "1")]),
        &["2 InvalidDefaultArgInFrom: Default value for ARG a:${T} results in empty or invalid base image name"],
    );
    let text = "FROM a\nRUN x";
    let plan = compile_with(text, &request(), |request| {
        let mut info = image(request);
        info.config.architecture = "arm64".into();
        info
    });
    assert_eq!(
        plan.ok().unwrap().warnings[0].message,
        "Base image a was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build"
    );
}

#[test]
fn about_instructions() {
    check(
        "FROM a\nCMD x",
        &[
            "2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        ],
    );
    check("FROM a\nSHELL [\"x\"]\nCMD x", &[]);
    check(
        "FROM a\nENV X=$Y\nARG D\nENV Z=$D$BASE$BASF${Q:-1}",
        &[
            "2 UndefinedVar: Usage of undefined variable '$Y'",
            "4 UndefinedVar: Usage of undefined variable '$BASF' (did you mean $BASE?)",
        ],
    );
    check(
        "FROM a\nWORKDIR x\nWORKDIR y",
        &["2 WorkdirRelativePath: Relative workdir \"x\" can have unexpected results if the base image changes"],
    );
    check(
        "FROM a\nCMD [\"a\"]\nCMD [\"b\"]",
        &[
            "2 MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only \
         the last one will be used",
        ],
    );
    check(
        "FROM a\nENV k v",
        &["2 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format"],
    );
    let secret =
        |what: &str| format!("2 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data ({what})");
    check("FROM a\nENV DB_PASSWORD=x", &[&secret("ENV \"DB_PASSWORD\"")]);
    check("FROM a\nARG token", &[&secret("ARG \"token\"")]);
    check("FROM a\nARG TOKEN_FILE MONKEY PUBLIC_KEY", &[]);
    check(
        "FROM a\nEXPOSE 80/TCP 1:2",
        &[
            "2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1:2'",
            "2 ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
        ],
    );
}

#[test]
fn ignored_sources() {
    let check = |ignored: &str, copy: &str, expect: &[&str]| {
        let request = CompileRequest { ignore_file: Some(ignored.into()), ..request() };
        check_warnings(&format!("FROM a\n{copy}"), &request, expect);
    };
    let warning = "2 CopyIgnoredFile: Attempting to Copy file \"a/b\" that is excluded by .dockerignore";
    check("a", "COPY ./a/b /", &[warning]);
    check("a\n!a/b", "COPY a/b /", &[]);
    check("a", "COPY --from=img a/b /", &[]);
    check("a", "COPY . /", &[]);
    check("*", "ADD x /", &["2 CopyIgnoredFile: Attempting to Add file \"x\" that is excluded by .dockerignore"]);
}

#[test]
fn switched_off_and_on() {
    check("# check=skip=StageNameCasing,JSONArgsRecommended\nFROM a AS B\nCMD x", &[]);
    check("# check=skip=all\nFROM a AS B\nCMD x", &[]);
    check("FROM a\n# check=skip=JSONArgsRecommended\nCMD x", &[]);
    check(
        "# check=error=true\nFROM a AS B\nCMD x",
        &[
            "2 StageNameCasing: Stage name 'B' should be lowercase",
            "3 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            "0 error: lint violation found for rules: JSONArgsRecommended, StageNameCasing",
        ],
    );
    check_warnings("# check=error=true\nFROM a AS B", &with_args(&[("BUILDKIT_DOCKERFILE_CHECK", "skip=all")]), &[]);
    check("# check=bogus=1\nFROM a", &["1 error: invalid check option \"bogus\""]);
    check(
        "# check=experimental=all\nARG X\n# what it is\nFROM a AS b",
        &["4 InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>`"],
    );
    check("ARG X\n# what it is\nFROM a AS b", &[]);
}

#[test]
fn first_platform_and_reachable_stages_only() {
    let request = CompileRequest { platforms: vec![platform("linux/amd64"), platform("linux/arm64")], ..request() };
    let warning = "3 UndefinedVar: Usage of undefined variable '$X'";
    check_warnings("FROM a AS unused\nFROM b\nENV A=$X\n", &request, &[warning]);
    check("FROM a AS unused\nENV A=$X\nFROM b", &[]);
}

#[test]
fn conditions_are_those_of_buildkit() {
    // Keywords are shown as written, but not where the message is about a kind of instruction.
    check(
        "from a\ncmd x\nenv k v",
        &[
            "2 JSONArgsRecommended: JSON arguments recommended for cmd to prevent unintended behavior related to OS signals",
            "3 LegacyKeyValueFormat: \"env key=value\" should be used instead of legacy \"env key value\" format",
        ],
    );
    let secret = "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data";
    check("from a\nenv TOKEN=x", &[&format!("2 {secret} (ENV \"TOKEN\")")]);
    check(
        "FROM a\nENV A_KEY=x A_KEY=y",
        &[&format!("2 {secret} (ENV \"A_KEY\")"), &format!("2 {secret} (ENV \"A_KEY\")")],
    );
    check("FROM a\nENV AUTHOR=x KEYS=y API_KEY_VERSION=z\nARG apikey", &[&format!("3 {secret} (ARG \"apikey\")")]);
    check("ARG TOKEN=x\nFROM a", &[]);
    // Once for each occurrence.
    let undefined = "2 UndefinedVar: Usage of undefined variable '$x'";
    check("FROM a\nCOPY $x$x $x", &[undefined, undefined]);
    check("FROM a\nRUN --mount=target=/m$x echo $y", &[undefined]);
    check("FROM a\nEXPOSE $x", &[]);
    check("FROM a\nCOPY <<E /x\n$x\nE", &[undefined]);
    check("FROM a AS b\nARG D\nFROM b\nCOPY $D /x", &[]);
    check("FROM a\nLABEL a=$BUILDKIT_SBOM_SCAN_STAGE", &[]);
}

#[test]
fn conditions_of_from_are_those_of_buildkit() {
    let redundant = |written: &str| {
        format!(
            "1 RedundantTargetPlatform: Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        )
    };
    check("FROM --platform=${TARGETPLATFORM:-linux/arm64} a", &[&redundant("${TARGETPLATFORM:-linux/arm64}")]);
    check("FROM --platform=$TARGETOS/$TARGETARCH a", &[]);
    check("ARG P=linux/amd64\nFROM --platform=$P a", &[]);
    check("FROM --platform=${P:-linux/amd64} a", &[]);
    let constant =
        "1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"";
    check("FROM --platform=linux/amd64 a AS base", &[constant]);
    check("FROM --platform=linux/amd64 a AS linux-base", &[]);
    let arm = |text: &str| {
        let plan = compile_with(text, &request(), |request| {
            let mut info = image(request);
            if matches!(&request.source, crate::compile::ImageLocation::Registry(name) if name.path == "library/b") {
                info.config.architecture = "arm64".into();
            }
            info
        });
        let warnings = plan.ok().unwrap().warnings;
        warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    let pulled = "Base image b was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build";
    assert_eq!(arm("FROM a\nCOPY --from=b /x /"), [pulled]);
    assert_eq!(arm("FROM b AS c\nFROM c\nFROM a\nCOPY --from=1 /x /"), [pulled]);
    assert_eq!(arm("FROM b AS c\nFROM a"), Vec::<String>::new());
}

#[test]
fn positions_are_those_of_buildkit() {
    let check = |text: &str, first: usize, last: usize| {
        let plan = plan(text);
        let source = SourceText { name: String::new(), text: text.into() };
        let lines: Vec<_> = plan.warnings.iter().map(|warning| source.lines(warning.span.unwrap())).collect();
        assert_eq!(lines, [(first, last)], "{text}");
    };
    check("FROM a\nRUN a \\\n\n b \\\n c\nUSER x", 5, 5);
    check("FROM a\nRUN cat <<E \\\n\n >x\nb\nE\nUSER x", 4, 4);
    check("FROM a\nENV a=1 \\\n  b=$x", 2, 3);
    check("FROM a\nCOPY <<E $x\nb\nE\nUSER x", 2, 4);
    check("FROM a\nCMD [\"a\"]\nUSER x\nCMD [\"b\"]", 2, 2);
    check("FROM a AS \\\n  Base", 1, 2);
}

#[test]
fn ignored_sources_are_those_of_buildkit() {
    let check = |ignored: &str, copy: &str, expect: &[&str]| {
        let request = CompileRequest { ignore_file: Some(ignored.into()), ..request() };
        let expect: Vec<String> = expect
            .iter()
            .map(|name| {
                format!("2 CopyIgnoredFile: Attempting to Copy file {name:?} that is excluded by .dockerignore")
            })
            .collect();
        check_warnings(&format!("FROM a\n{copy}"), &request, &expect.iter().map(String::as_str).collect::<Vec<_>>());
    };
    check("a", "COPY a//b/../c /", &["a/c"]);
    check("a", "COPY /a/b /", &[]);
    check("**/b", "COPY /a/b /", &["/a/b"]);
    check("*", "COPY . /", &["."]);
    check("*", "COPY / /", &[]);
    check("**", "COPY / /", &["/"]);
    check("*.log", "COPY x.log y.log z /", &["x.log", "y.log"]);
    check("x", "COPY <<x /\nx", &[]);
}

#[test]
fn descriptions() {
    let check = |text: &str, expect: &[&str]| {
        let text = format!("# check=experimental=InvalidDefinitionDescription\n{text}");
        check_warnings(&text, &request(), expect);
    };
    check("# X is this\nARG X=\"a b\"\n# base is that\nFROM a AS base", &[]);
    let wrong = |line, what: &str, example: &str| {
        format!(
            "{line} InvalidDefinitionDescription: Comment for {what} should follow the format: `# {example} <description>`"
        )
    };
    check("# x\nARG X=\"a b\"\nFROM a", &[&wrong(3, "ARG", "X")]);
    check("# x\nARG X Y\nFROM a", &[&wrong(3, "ARG", "<arg_key>")]);
    check("# X is this\n# and that\nFROM a AS x", &[&wrong(4, "FROM", "x")]);
    check("# remark\n\nARG X\n# remark\nFROM a", &[]);
}
