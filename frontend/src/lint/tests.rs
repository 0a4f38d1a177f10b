//! Each rule once, and how rules are switched off.

use super::rule_url;
use crate::compile::CompileRequest;
use crate::testing::*;

fn check(text: &str, expect: &[&str]) {
    check_warnings(text, &request(), expect);
}

#[test]
fn about_the_text() {
    check("FROM a AS Base", &["1 StageNameCasing: Stage name 'Base' should be lowercase"]);
    check("FROM a as b", &["1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"]);
    check("from a AS b", &["1 FromAsCasing: 'AS' and 'from' keywords' casing do not match"]);
    check("FROM a\nRUN x \\\n\n  y", &["2 NoEmptyContinuation: Empty continuation line"]);
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
fn urls() {
    let check = |rule: &str, expect: &str| {
        let url = rule_url(rule).unwrap();
        assert_eq!(url.trim_end_matches('/').rsplit('/').next(), Some(expect));
    };
    check("StageNameCasing", "stage-name-casing");
    check("JSONArgsRecommended", "json-args-recommended");
    check("FromPlatformFlagConstDisallowed", "from-platform-flag-const-disallowed");
    assert_eq!(rule_url("InvalidBaseImagePlatform"), None);
}
