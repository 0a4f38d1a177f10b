//! The program that a command is about: `sudo -E env A=b nice apt-get update` is about apt-get.

use super::{Command, Word};

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Invocation<'a> {
    /// Name without folders.
    pub program: &'a str,
    /// What follows it.
    pub args: &'a [Word],
    /// Programs that it was looked through, such as `sudo`, first one first.
    pub wrappers: Vec<&'a str>,
    /// Variables set for it alone.
    pub assignments: Vec<(&'a str, &'a str)>,
    /// The whole command.
    pub command: &'a Command,
}

/// A program that runs another.
struct Wrapper {
    name: &'static str,
    /// Options that take the next word.
    with_value: &'static [&'static str],
    /// Words before the other program that are no options.
    operands: usize,
}

const fn wrapper(name: &'static str, with_value: &'static [&'static str], operands: usize) -> Wrapper {
    Wrapper { name, with_value, operands }
}

const WRAPPERS: &[Wrapper] = &[
    wrapper("sudo", &["-u", "-g", "-h", "-p", "-C", "-r", "-t", "-U", "--user", "--group"], 0),
    wrapper("doas", &["-u", "-C"], 0),
    wrapper("env", &["-u", "-C", "--unset", "--chdir"], 0),
    wrapper("exec", &["-a"], 0),
    wrapper("command", &[], 0),
    wrapper("builtin", &[], 0),
    wrapper("nohup", &[], 0),
    wrapper("setsid", &[], 0),
    wrapper("time", &["-f", "-o"], 0),
    wrapper("nice", &["-n"], 0),
    wrapper("ionice", &["-c", "-n"], 0),
    wrapper("timeout", &["-k", "-s", "--signal", "--kill-after"], 1),
    wrapper("stdbuf", &["-i", "-o", "-e"], 0),
    wrapper("xargs", &["-n", "-I", "-L", "-P", "-d", "-s", "-a", "-E"], 0),
    wrapper("busybox", &[], 0),
    wrapper("eatmydata", &[], 0),
    wrapper("fakeroot", &[], 0),
    wrapper("gosu", &[], 1),
    wrapper("su-exec", &[], 1),
];

impl<'a> Invocation<'a> {
    pub(super) fn of(command: &'a Command) -> Option<Invocation<'a>> {
        let mut words = command.words.as_slice();
        let mut wrappers = vec![];
        let own = command.assignments.iter().map(|(name, word)| (name.as_str(), word.text.as_str()));
        let mut assignments: Vec<_> = own.collect();
        loop {
            let (first, rest) = words.split_first()?;
            if first.text.starts_with('$') {
                return None;
            }
            let program = first.text.rsplit('/').next().unwrap_or_default();
            let known = WRAPPERS.iter().find(|wrapper| wrapper.name == program);
            let inner = known.and_then(|wrapper| inside(wrapper, rest, &mut assignments));
            match inner {
                Some(inner) => {
                    wrappers.push(program);
                    words = inner;
                }
                None => return Some(Invocation { program, args: rest, wrappers, assignments, command }),
            }
        }
    }

    /// The arguments that are no options, as texts.
    pub fn operands(&self) -> impl Iterator<Item = &'a str> {
        self.args.iter().map(|word| word.text.as_str()).filter(|text| !text.starts_with('-'))
    }

    /// Whether one of these options is among the arguments: long ones as a whole or with `=`, short ones also joined
    /// with others (`-yq`).
    pub fn has_option(&self, options: &[&str]) -> bool {
        self.args.iter().any(|word| options.iter().any(|option| is_option(&word.text, option)))
    }
}

fn is_option(word: &str, option: &str) -> bool {
    if word == option {
        return true;
    }
    if option.starts_with("--") {
        return word.strip_prefix(option).is_some_and(|rest| rest.starts_with('='));
    }
    match (word.strip_prefix('-'), option.strip_prefix('-')) {
        (Some(letters), Some(letter)) if letter.len() == 1 => {
            letters.chars().all(|c| c.is_ascii_alphanumeric()) && letters.contains(letter)
        }
        _ => false,
    }
}

/// The command after a wrapper's own options and operands; `None` if there is none.
fn inside<'a>(
    wrapper: &Wrapper,
    mut words: &'a [Word],
    assignments: &mut Vec<(&'a str, &'a str)>,
) -> Option<&'a [Word]> {
    let mut operands = wrapper.operands;
    // `command -v x` only looks x up.
    if wrapper.name == "command" && words.first().is_some_and(|word| ["-v", "-V"].contains(&word.text.as_str())) {
        return None;
    }
    loop {
        let (first, rest) = words.split_first()?;
        let text = first.text.as_str();
        if text == "--" {
            return Some(rest).filter(|rest| !rest.is_empty());
        }
        words = if wrapper.with_value.contains(&text) {
            rest.get(1..)?
        } else if text.starts_with('-') {
            rest
        } else if let (true, Some((name, value))) = (["env", "sudo"].contains(&wrapper.name), text.split_once('=')) {
            assignments.push((name, value));
            rest
        } else if operands > 0 {
            operands -= 1;
            rest
        } else {
            return Some(words);
        };
    }
}
