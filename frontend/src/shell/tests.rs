//! What is read of shell texts.

use super::*;
use proptest::prelude::*;

/// A command on one line: `list:join assignments | words | redirections`, words in brackets where blanks are in them.
fn show(command: &Command) -> String {
    let join = match command.join {
        Join::Sequence => "",
        Join::And => "&& ",
        Join::Or => "|| ",
        Join::Pipe => "| ",
    };
    let list = if command.list == 0 { String::new() } else { format!("{}: ", command.list) };
    let word = |text: &str| match text.contains(char::is_whitespace) || text.is_empty() {
        true => format!("[{text}]"),
        false => text.to_string(),
    };
    let assigned = command.assignments.iter().map(|(name, value)| format!("{name}={}", word(&value.text)));
    let words = command.words.iter().map(|w| word(&w.text));
    let redirected = command.redirections.iter().map(|(operator, target)| format!("{operator}{}", word(&target.text)));
    let parts: Vec<String> = assigned.chain(words).chain(redirected).collect();
    format!("{list}{join}{}", parts.join(" "))
}

fn check(text: &str, expect: &[&str]) {
    let shown: Vec<String> = Script::parse(text).commands.iter().map(show).collect();
    assert_eq!(shown, expect, "{text}");
}

#[test]
fn commands_and_operators() {
    check("a b&&c||d;e|f&g", &["a b", "&& c", "|| d", "e", "| f", "g"]);
    check("a\n\nb |\n c &&\n\td", &["a", "b", "| c", "&& d"]);
    check("a |& b 2>&1 | c", &["a", "| b >&1", "| c"]);
    check("apt-get install -y \\\n  curl   # why\nb#c", &["apt-get install -y curl", "b#c"]);
    check("  ", &[]);
    check("; && |", &[]);
}

#[test]
fn quotes() {
    check(r#"a 'b c' "d $e \" \x" f\ g h"i"'j'"#, &[r#"a [b c] [d $e " \x] [f g] hij"#]);
    check("a $'b\\'c' $\"d\" ''", &["a b'c d []"]);
    check("a 'b", &["a b"]);
    check("a \"b", &["a b"]);
    check("echo a\\", &["echo a"]);
}

#[test]
fn assignments_and_redirections() {
    check("A=1 B=\"2 3\" c D=4 >x 2>>y <z", &["A=1 B=[2 3] c D=4 >x >>y <z"]);
    check("A=1; B+=2", &["A=1", "B=2"]);
    check("A=(1 $b 'c d'); e", &["A=[(1 $b 'c d')]", "e"]);
    check("a &>x; b 3<y; c >|z; d <<<w", &["a &>x", "b <y", "c >|z", "d <<<w"]);
    check("1=2 a", &["1=2 a"]);
}

#[test]
fn substitutions_and_subshells() {
    check("a $(b | c) d", &["1: b", "1: | c", "a [$(b | c)] d"]);
    check("a \"$(b \"$(c)\")\"", &["2: c", "1: b $(c)", "a [$(b \"$(c)\")]"]);
    check("a `b \\`c\\`` d", &["2: c", "1: b `c`", "a [`b \\`c\\``] d"]);
    check("(a; b) | c", &["1: a", "1: b", "", "| c"]);
    check("a $((1 << 2)) $(( $x * (2+3) )) b", &["a [$((1 << 2))] [$(( $x * (2+3) ))] b"]);
    check("((x++)) && a", &["(([]", "&& a"]);
    check("a <(b) >(c)", &["1: b", "2: c", "a <(b) >(c)"]);
    check("a ${b:-c d} ${e/\\}/f} g", &["a [${b:-c d}] ${e/\\}/f} g"]);
}

#[test]
fn compound_commands() {
    check("if a; then b; elif c; then d; else e; fi", &["a", "b", "c", "d", "e"]);
    check("while a | read b; do c; done && d", &["a", "| read b", "c", "&& d"]);
    check("for x in 1 2; do a $x; done", &["for x in 1 2", "a $x"]);
    check("{ a; b; } > c", &["a", "b", ">c"]);
    check("f() { a; }; function g { b; }; f", &["a", "b", "f"]);
    check("! a && time b", &["a", "&& b"]);
    let case = Script::parse("case \"$x\" in\n a|b) c ;; # d\n (e) f;; *) g\nesac; h");
    let shown: Vec<String> = case.commands.iter().filter(|command| command.list == 0).map(show).collect();
    assert_eq!(shown, ["c", "f", "g", "h"]);
    check("[[ a < b && $c =~ ^(d|e)$ ]] && f", &["[[ a < b && $c =~ ^(d|e)$ ]]", "&& f"]);
}

#[test]
fn documents() {
    let script = Script::parse("cat <<A <<-'B' > x && c\n$y ${z:-1}\nA\n\t$q\n\tB\nd");
    let shown: Vec<String> = script.commands.iter().map(show).collect();
    assert_eq!(shown, ["cat >x", "&& c", "d"]);
    let bodies: Vec<&str> = script.documents.iter().map(|document| document.body.as_str()).collect();
    assert_eq!(bodies, ["$y ${z:-1}\n", "$q\n"]);
    let names: Vec<(&str, bool)> = script.variables().map(|v| (v.name.as_str(), v.is_guarded)).collect();
    assert_eq!(names, [("y", false), ("z", true)]);
}

#[test]
fn texts_for_other_shells() {
    check("bash -exc 'a && b' x", &["bash -exc [a && b] x", "1: a", "1: && b"]);
    check("sudo sh -c \"sh -c 'a'\"", &["sudo sh -c [sh -c 'a']", "1: sh -c a", "2: a"]);
    check("eval \"a $b\" c", &["eval [a $b] c", "1: a $b c"]);
    check("bash <<E\na\nE\n", &["bash", "1: a"]);
    check("cat <<E\na\nE\n", &["cat"]);
    let script = Script::of_exec(&["/bin/sh", "-c", "a; b"].map(String::from));
    assert_eq!(script.commands.iter().map(show).collect::<Vec<_>>(), ["/bin/sh -c [a; b]", "1: a", "1: b"]);
}

#[test]
fn variables() {
    let check = |text: &str, expect: &[(&str, bool)]| {
        let script = Script::parse(text);
        let found: Vec<_> = script.variables().map(|v| (v.name.as_str(), v.is_guarded)).collect();
        assert_eq!(found, expect, "{text}");
    };
    check("a $b ${c} \"$d\" '$e' \\$f $1 $@", &[("b", false), ("c", false), ("d", false)]);
    check("a ${b:-$c} ${d-${e}} ${#f} ${g%x}", &[("b", true), ("d", true), ("e", true), ("f", false), ("g", false)]);
    check("A=$b c > $d <<E\n$e\nE", &[("b", false), ("d", false), ("e", false)]);
    check("echo $((x + $y))", &[("y", false)]);
}

#[test]
fn programs_are_looked_up_through_wrappers() {
    let check = |text: &str, expect: Option<(&str, &str, &[&str])>| {
        let script = Script::parse(text);
        let invocation = script.commands[0].invocation();
        let found = invocation.as_ref().map(|invocation| {
            let args: Vec<&str> = invocation.args.iter().map(|word| word.text.as_str()).collect();
            (invocation.program, args.join(" "), invocation.wrappers.clone())
        });
        let expect = expect.map(|(program, args, wrappers)| (program, args.to_string(), wrappers.to_vec()));
        assert_eq!(found, expect, "{text}");
    };
    check("/usr/bin/apt-get update", Some(("apt-get", "update", &[])));
    check("sudo -E -u root env A=b nice -n 5 apt-get x", Some(("apt-get", "x", &["sudo", "env", "nice"])));
    check("A=b exec -- c d", Some(("c", "d", &["exec"])));
    check("timeout -k 5 10 a", Some(("a", "", &["timeout"])));
    check("xargs -r -n 1 apt-get install", Some(("apt-get", "install", &["xargs"])));
    check("command -v curl", Some(("command", "-v curl", &[])));
    check("sudo", Some(("sudo", "", &[])));
    check("$X a", None);
    let script = Script::parse("env PIP_NO_CACHE_DIR=1 pip install -yq --root=/x");
    let pip = script.commands[0].invocation().unwrap();
    assert_eq!(pip.assignments, [("PIP_NO_CACHE_DIR", "1")]);
    assert!(pip.has_option(&["-y"]) && pip.has_option(&["--root"]) && !pip.has_option(&["-x", "--roo"]));
}

#[test]
fn pipelines() {
    let script = Script::parse("a | (b | c) | d; e");
    let names = |pipeline: &Vec<usize>| -> Vec<String> {
        pipeline
            .iter()
            .map(|index| script.commands[*index].words.first().map_or("()".into(), |w| w.text.clone()))
            .collect()
    };
    let found: Vec<Vec<String>> = script.pipelines().iter().map(names).collect();
    assert_eq!(found, [vec!["a", "()", "d"], vec!["b", "c"], vec!["e"]]);
}

/// Time must not grow faster than the text: each of these would take minutes if it did.
#[test]
fn long_texts() {
    let pieces = [
        "(",
        "$(",
        "`",
        "\"",
        "${a",
        "<<E\n",
        "case x in ",
        "$((",
        "a=(",
        "if ",
        "<(",
        "\\`",
        "'",
        "a;",
        "sh -c 'a' ",
        "[[ ",
    ];
    for piece in pieces {
        Script::parse(&piece.repeat(100_000));
        Script::parse(&format!("{}{}", piece.repeat(50_000), ")\"'`}\nE\n".repeat(50_000)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_text_is_read(text in any::<String>()) {
        Script::parse(&text);
    }

    #[test]
    fn shell_like_text_is_read(
        text in "((a|if|then|fi|case|in|esac|for|do|done|sh -c|sudo|A=|eval|bash|<<E|E|é| |\\n|;|&|\\||\\(|\\)|\\{|\\}|<|>|'|\"|`|\\$|\\\\|#|!|=|1|\\[\\[|\\]\\]|\\t)){0,60}"
    ) {
        let script = Script::parse(&text);
        for pipeline in script.pipelines() {
            prop_assert!(!pipeline.is_empty());
        }
        prop_assert!(script.invocations().count() <= script.commands.len());
        prop_assert!(script.variables().all(|variable| !variable.name.is_empty()));
    }
}
