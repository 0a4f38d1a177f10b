//! RUN: its forms, and what it sees.

use harness::{Kiln, Tree};

/// Runs `RUN <command>` on busybox and compares what it left in /out.
fn check(instruction: &str, expect: &str) {
    let image = Kiln::new().image(&Tree::dockerfile(&format!("FROM busybox\n{instruction}\n")));
    assert_eq!(image.text("/out"), expect, "{instruction}");
}

#[test]
fn shell_form_goes_through_the_shell() {
    check("RUN A=1 && echo $A $(id -u) > /out", "1 0\n");
}

#[test]
fn exec_form_does_not() {
    check(r#"RUN ["cp", "/etc/group", "/out"]"#, "root:x:0:\ndaemon:x:1:\nadm:x:4:daemon\nnogroup:x:65534:\n");
}

#[test]
fn heredocs_are_scripts() {
    check("RUN <<EOF\necho a > /out\necho b >> /out\nEOF", "a\nb\n");
}

#[test]
fn continuation_lines_and_comments() {
    check("RUN echo a \\\n  # a remark\n  b \\\n\n  c > /out", "a b c\n");
}

#[test]
fn user_workdir_env_and_shell_apply() {
    check(
        "ENV WHO=me\nWORKDIR /w\nRUN chmod 777 / .\nUSER daemon\nRUN echo $WHO $(id -un) $PWD > /out",
        "me daemon /w\n",
    );
    check("SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $- | grep -o e > /out", "e\n");
}

#[test]
fn layers_hold_only_what_the_step_changed() {
    let image =
        Kiln::new().image(&Tree::dockerfile("FROM busybox\nRUN mkdir /d && echo 1 > /d/f\nRUN echo 2 > /d/g\n"));
    assert_eq!(image.layers.len(), 3);
    assert_eq!(image.paths_above(2), ["/d", "/d/g"]);
}

#[test]
fn proxies_of_the_command_line_go_before_those_of_the_image() {
    let context = Tree::dockerfile("FROM busybox\nENV http_proxy=image\nRUN echo $http_proxy $HTTP_PROXY > /out\n");
    let image = Kiln::new().build(&context).args(["--build-arg", "HTTP_PROXY=given"]).image();
    assert_eq!(image.text("/out"), "given given\n");
}
