//! The parts of a recipe by names that people know. Recipes name parts by their place in an op (`exec.env.3`), so that one
//! more in the middle of a list gives all that follow other names; here they are named by what they are.

use solver::explain;
use solver::key::KeyRecipe;
use std::collections::BTreeMap;

/// What differs between two recipes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Command {
        before: Option<String>,
        now: Option<String>,
    },
    Variable {
        name: String,
        before: Option<String>,
        now: Option<String>,
    },
    /// Digests of selections, under the recipe's name of the part.
    Files {
        part: String,
        before: Option<String>,
        now: Option<String>,
    },
    /// Content ids.
    Base {
        before: Option<String>,
        now: Option<String>,
    },
    Setting {
        name: String,
        before: Option<String>,
        now: Option<String>,
    },
}

/// What differs: what the step says first, then what it takes, then what it lies on. Not empty unless the recipes are equal.
pub fn differences(before: &KeyRecipe, now: &KeyRecipe) -> Vec<Difference> {
    let mut parts = explain::differences(&named(before), &named(now));
    // A whole mount that came or went is one difference.
    let whole = |part: &&explain::Difference| part.before.is_none() != part.now.is_none();
    let mounts: Vec<String> =
        parts.iter().filter(whole).filter_map(|part| part.name.strip_prefix("mount ")).map(str::to_string).collect();
    let is_of_whole = |name: &str| {
        mounts.iter().any(|target| {
            name.strip_prefix("mounted ") == Some(target)
                || name
                    .strip_prefix("mount ")
                    .and_then(|rest| rest.strip_prefix(target.as_str()))
                    .is_some_and(|rest| rest.starts_with(' '))
        })
    };
    parts.retain(|part| !is_of_whole(&part.name));
    let mut found: Vec<(usize, Difference)> = parts.into_iter().map(classified).collect();
    if found.is_empty() {
        // The same things in another order.
        let raw = explain::differences(before, now).into_iter();
        found.extend(raw.map(|part| (1, setting(part.name, part.before, part.now))));
    }
    if found.is_empty() && before != now {
        let order = |recipe: &KeyRecipe| {
            let names: Vec<&str> = recipe.parts.iter().map(|part| part.name.as_str()).collect();
            Some(names.join(", "))
        };
        found.push((1, setting("order of its parts".into(), order(before), order(now))));
    }
    found.sort_by_key(|(rank, _)| *rank);
    let has_other = found.iter().any(|(rank, _)| *rank < PLACES);
    // Which of the inputs something comes from moves when there is one more, and says nothing then.
    found.into_iter().filter(|(rank, _)| *rank < PLACES || !has_other).map(|(_, found)| found).collect()
}

/// Content id of what the step lies on.
pub fn base(recipe: &KeyRecipe) -> Option<&str> {
    recipe.parts.iter().find(|part| is_base(&part.name)).map(|part| part.value.as_str())
}

fn is_base(name: &str) -> bool {
    matches!(name, "base" | "root")
}

/// Rank of positions of inputs; smaller ones come first.
const PLACES: usize = 4;

fn classified(part: explain::Difference) -> (usize, Difference) {
    let explain::Difference { name, before, now } = part;
    if let Some(name) = name.strip_prefix("variable ") {
        return (1, Difference::Variable { name: name.to_string(), before, now });
    }
    if name == "command" {
        let (before, now) = commands(before, now);
        return (0, Difference::Command { before, now });
    }
    if name.starts_with("copied ") || name.starts_with("mounted ") {
        return (2, Difference::Files { part: name, before, now });
    }
    if is_base(&name) {
        return (3, Difference::Base { before, now });
    }
    let rank = if name.ends_with("input") { PLACES } else { 1 };
    (rank, setting(name, before, now))
}

fn setting(name: String, before: Option<String>, now: Option<String>) -> Difference {
    Difference::Setting { name, before, now }
}

/// Commands as they are written, if both are run by the same shell; else as lists.
fn commands(before: Option<String>, now: Option<String>) -> (Option<String>, Option<String>) {
    let list = |text: &Option<String>| {
        text.as_ref().and_then(|text| serde_json::from_str::<Vec<String>>(text).ok()).unwrap_or_default()
    };
    let (old, new) = (list(&before), list(&now));
    let shell = |list: &[String]| list.split_last().map(|(_, shell)| shell.to_vec()).unwrap_or_default();
    let same_shell = before.is_none() || now.is_none() || shell(&old) == shell(&new);
    if !same_shell || (old.len() < 3 && new.len() < 3) {
        return (before, now);
    }
    (before.and(old.last().cloned()), now.and(new.last().cloned()))
}

/// The same parts, named by what they are. Parts that say that something is not there are left out.
fn named(recipe: &KeyRecipe) -> KeyRecipe {
    let lists = Lists::of(recipe);
    let mut renamed = KeyRecipe::new();
    // Values that are one for people and several in the recipe.
    let mut joined: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for part in &recipe.parts {
        let value = part.value.as_str();
        if matches!(value, "[]" | "null") {
            continue;
        }
        let path: Vec<&str> = part.name.split('.').collect();
        match path[..] {
            ["exec", "args", _] => joined.entry("command".into()).or_default().push(value),
            ["exec" | "file", "platform", field] => {
                // Recipes have fields in the order of their names.
                let words = joined.entry("platform".into()).or_default();
                words.insert(if field == "os" { 0 } else { words.len() }, value);
            }
            ["exec", "env", _] => match value.split_once('=') {
                Some((name, value)) => renamed.push(format!("variable {name}"), value),
                None => renamed.push(part.name.as_str(), value),
            },
            ["exec", "mounts", number, "target"] => {
                renamed.push(format!("mount {value}"), lists.kinds.get(number).copied().unwrap_or("mount"));
            }
            ["exec", list @ ("mounts" | "secret_env" | "ulimits" | "extra_hosts"), number, ref rest @ ..] => {
                let kind = list.trim_end_matches('s').replace('_', " ");
                let id = lists.ids.get(&(list, number)).copied().unwrap_or(number);
                renamed.push(words(&format!("{kind} {id}"), rest), value);
            }
            ["exec", "script", ..] => renamed.push("script", value),
            ["exec", "cwd"] => renamed.push("WORKDIR", value),
            ["exec", "user"] => renamed.push("USER", value),
            ["exec", "root"] | ["file", "base"] => renamed.push("base's input", value),
            ["exec", ref rest @ ..] => renamed.push(words("", rest), value),
            ["file", "actions", number, _, ref rest @ ..] => {
                let number = if number == "0" { String::new() } else { format!("{number}: ") };
                match rest {
                    ["owner", whose, _] => {
                        let whose = if *whose == "user" { 0 } else { 1 };
                        let ids = joined.entry(format!("{number}--chown")).or_default();
                        ids.insert(whose.min(ids.len()), value);
                    }
                    ["chmod", "octal"] => {
                        let mode = value.parse::<u32>().map_or(value.to_string(), |mode| format!("{mode:o}"));
                        renamed.push(format!("{number}--chmod"), mode);
                    }
                    ["chmod", _] => renamed.push(format!("{number}--chmod"), value),
                    ["exclude", _] => renamed.push(format!("{number}--exclude"), value),
                    [flag @ ("link" | "parents" | "unpack")] => renamed.push(format!("{number}--{flag}"), value),
                    ["data"] => renamed.push(format!("{number}heredoc"), value),
                    ["dest" | "path"] => renamed.push(format!("{number}destination"), value),
                    ["from"] => renamed.push(format!("{number}input"), value),
                    rest => renamed.push(words(&number, rest), value),
                }
            }
            _ => renamed.push(part.name.as_str(), value),
        }
    }
    for (name, values) in joined {
        let text = match name.as_str() {
            "command" => serde_json::to_string(&values).expect("a list of texts"),
            "platform" => values.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("/"),
            _ => values.join(":"),
        };
        renamed.push(name, text);
    }
    renamed
}

/// What tells the items of lists apart.
struct Lists<'a> {
    /// By list and number: the target of a mount, the name of a limit.
    ids: BTreeMap<(&'a str, &'a str), &'a str>,
    /// Of mounts, by number.
    kinds: BTreeMap<&'a str, &'a str>,
}

impl<'a> Lists<'a> {
    fn of(recipe: &'a KeyRecipe) -> Lists<'a> {
        let mut lists = Lists { ids: BTreeMap::new(), kinds: BTreeMap::new() };
        for part in &recipe.parts {
            let path: Vec<&str> = part.name.split('.').collect();
            match path[..] {
                ["exec", list, number, "target" | "name" | "0"] => {
                    lists.ids.insert((list, number), part.value.as_str());
                }
                ["exec", "mounts", number, "kind", kind, ..] => {
                    lists.kinds.insert(number, kind);
                }
                _ => {}
            }
        }
        lists
    }
}

/// `mount /x` and `kind.bind.source` give `mount /x source`: how the op nests says nothing to people.
fn words(head: &str, rest: &[&str]) -> String {
    let rest = match rest {
        ["kind", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let rest: Vec<&str> = rest.iter().map(|word| if *word == "from" { "input" } else { word }).collect();
    format!("{head} {}", rest.join(" ")).trim().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontend::span::SourceText;
    use frontend::stand_in::{build, request};
    use proptest::prelude::*;

    fn recipe(parts: &[(String, String)]) -> KeyRecipe {
        let mut recipe = KeyRecipe::new();
        parts.iter().for_each(|(name, value)| recipe.push(name.as_str(), value.as_str()));
        recipe
    }

    /// Of the last step.
    fn recipe_of(line: &str) -> KeyRecipe {
        let source = SourceText { name: "Dockerfile".into(), text: format!("FROM x\n{line}") };
        let (_, plan) = build(source, &request()).unwrap();
        plan.graph.value(plan.results[0].root.unwrap().vertex).op.recipe()
    }

    #[track_caller]
    fn check(before: &str, now: &str, expect: &str) {
        let found = differences(&recipe_of(before), &recipe_of(now));
        let shown = |difference: &Difference| match difference {
            Difference::Command { before, now } => format!("command {before:?} {now:?}"),
            Difference::Variable { name, before, now } => format!("{name}= {before:?} {now:?}"),
            Difference::Setting { name, before, now } => format!("{name}: {before:?} {now:?}"),
            other => format!("{other:?}"),
        };
        let shown: Vec<String> = found.iter().map(shown).collect();
        assert_eq!(shown.join("; ").replace("Some(", "").replace(')', ""), expect);
    }

    #[test]
    fn parts_have_names_that_people_know() {
        check("RUN make", "RUN make", "");
        check("RUN make", "RUN make all", r#"command "make" "make all""#);
        check("ENV A=1\nENV B=1\nRUN x", "ENV B=1\nRUN x", r#"A= "1" None"#);
        check("ARG A=1\nRUN x", "ARG A=2\nRUN x", r#"A= "1" "2""#);
        check("RUN x", "USER u\nRUN x", r#"USER: "" "u""#);
        check("RUN x", "RUN --network=none x", r#"network: "default" "none""#);
        let two = "RUN --mount=type=tmpfs,target=/a --mount=type=tmpfs,target=/b x";
        check("RUN --mount=type=tmpfs,target=/b x", two, r#"mount /a: None "tmpfs""#);
        check("COPY a /", "COPY a /b", r#"destination: "/" "/b""#);
        check("COPY a /", "COPY --chmod=700 a /", r#"--chmod: None "700""#);
        check("COPY --chown=1 a /", "COPY --chown=1:2 a /", r#"--chown: "1" "1:2""#);
        check("COPY <<f /\n1\nf\n", "COPY <<f /\n2\nf\n", r#"heredoc: "1\n" "2\n""#);
    }

    proptest! {
        #[test]
        fn something_that_really_differs_is_named(
            before in prop::collection::vec((NAME, VALUE), 0..10),
            now in prop::collection::vec((NAME, VALUE), 0..10),
        ) {
            let (before, now) = (recipe(&before), recipe(&now));
            let found = differences(&before, &now);
            prop_assert_eq!(found.is_empty(), before == now, "{:?}", found);
            for difference in found {
                let (Difference::Command { before: old, now: new }
                | Difference::Variable { before: old, now: new, .. }
                | Difference::Files { before: old, now: new, .. }
                | Difference::Base { before: old, now: new }
                | Difference::Setting { before: old, now: new, .. }) = &difference;
                prop_assert!(old != new, "{:?}", difference);
            }
        }
    }

    const NAME: &str = "exec\\.(args|env|mounts|ulimits)\\.[0-2](\\.target|\\.kind\\.bind\\.from|\\.0)?|exec\\.(user|root|script\\.0|platform\\.os)|\
        file\\.(base|actions\\.[01]\\.copy\\.(from|source))|base|root|copied [01]|mounted /a|.{0,9}";
    const VALUE: &str = "[AB]=[12]|\\[\\]|null|.{0,4}";
}
