//! Why a step was not cached: the missed key's recipe beside a former one of the same step.
//!
//! Knows nothing of what the parts mean; whoever does gives them names that say so before they are compared.

use crate::key::{KeyRecipe, RecipePart};
use std::collections::HashMap;

/// A part in which two recipes differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the part.
    pub name: String,
    /// Its value before; `None` if it was not there.
    pub before: Option<String>,
    /// Its value now; `None` if it is gone.
    pub now: Option<String>,
}

/// Compares parts by name: first those that are there now, in their order, then those that are gone. Of several parts of
/// one name the first is compared with the first, and so on. Empty if the recipes have equal parts.
pub fn differences(before: &KeyRecipe, now: &KeyRecipe) -> Vec<Difference> {
    let mut former: HashMap<(&str, usize), &RecipePart> = numbered(before).collect();
    let mut found = vec![];
    for (place, part) in numbered(now) {
        let old = former.remove(&place).map(|old| old.value.clone());
        if old.as_ref() != Some(&part.value) {
            found.push(Difference { name: part.name.clone(), before: old, now: Some(part.value.clone()) });
        }
    }
    let gone = numbered(before).filter(|(place, _)| former.contains_key(place));
    found.extend(gone.map(|(_, part)| Difference {
        name: part.name.clone(),
        before: Some(part.value.clone()),
        now: None,
    }));
    found
}

/// Each part with its name and how many of that name came before it.
fn numbered(recipe: &KeyRecipe) -> impl Iterator<Item = ((&str, usize), &RecipePart)> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    recipe.parts.iter().map(move |part| {
        let count = seen.entry(&part.name).or_default();
        *count += 1;
        ((part.name.as_str(), *count - 1), part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recipe(parts: &[(&str, &str)]) -> KeyRecipe {
        let mut recipe = KeyRecipe::new();
        parts.iter().for_each(|(name, value)| recipe.push(*name, *value));
        recipe
    }

    #[track_caller]
    fn check(before: &[(&str, &str)], now: &[(&str, &str)], expect: &[(&str, Option<&str>, Option<&str>)]) {
        let found = differences(&recipe(before), &recipe(now));
        let found: Vec<_> = found.iter().map(|d| (d.name.as_str(), d.before.as_deref(), d.now.as_deref())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn names_what_differs() {
        let before = [("args", "make"), ("env", "A=1"), ("input", "x")];
        check(&before, &before, &[]);
        let now = [("args", "make"), ("env", "A=2"), ("input", "y")];
        check(&before, &now, &[("env", Some("A=1"), Some("A=2")), ("input", Some("x"), Some("y"))]);
        let longer = [("args", "make"), ("mount", "m"), ("env", "A=1"), ("input", "x")];
        check(&before, &longer, &[("mount", None, Some("m"))]);
        check(&longer, &before, &[("mount", Some("m"), None)]);
        check(&[("a", "1"), ("a", "2")], &[("a", "1"), ("a", "3")], &[("a", Some("2"), Some("3"))]);
    }

    proptest! {
        #[test]
        fn only_what_really_differs_is_named(
            before in prop::collection::vec(("[a-c]", "[x-z]"), 0..8),
            now in prop::collection::vec(("[a-c]", "[x-z]"), 0..8),
        ) {
            let of = |parts: &[(String, String)]| {
                let mut recipe = KeyRecipe::new();
                parts.iter().for_each(|(name, value)| recipe.push(name.as_str(), value.as_str()));
                recipe
            };
            let sorted = |parts: &[(String, String)]| {
                let mut names: Vec<_> = parts.to_vec();
                // Parts of one name keep their order; the order of different names is not told apart.
                names.sort_by(|one, other| one.0.cmp(&other.0));
                names
            };
            let found = differences(&of(&before), &of(&now));
            prop_assert_eq!(found.is_empty(), sorted(&before) == sorted(&now));
            let has = |parts: &[(String, String)], name: &str, value: &str| parts.iter().any(|p| p.0 == name && p.1 == value);
            for difference in found {
                prop_assert_ne!(&difference.before, &difference.now);
                let (old, new) = (difference.before.as_deref(), difference.now.as_deref());
                prop_assert!(old.is_none_or(|value| has(&before, &difference.name, value)));
                prop_assert!(new.is_none_or(|value| has(&now, &difference.name, value)));
            }
        }
    }
}
