//! Why a step was not cached: the missed key's recipe beside a former one of the same step.

use crate::key::KeyRecipe;

/// The first part in which two recipes differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the part.
    pub name: String,
    /// Its value before; `None` if it was not there.
    pub before: Option<String>,
    /// Its value now; `None` if it is gone.
    pub now: Option<String>,
}

/// Compares part by part in order. `None` if the recipes are equal.
pub fn first_difference(before: &KeyRecipe, now: &KeyRecipe) -> Option<Difference> {
    let length = before.parts.len().max(now.parts.len());
    (0..length).find_map(|i| {
        let (old, new) = (before.parts.get(i), now.parts.get(i));
        if old == new {
            return None;
        }
        // A part that was put in or taken out shifts the rest: the name that is only on one side is the difference.
        let name = new.or(old).expect("one of them is longer than i").name.clone();
        let value_in = |part: Option<&crate::key::RecipePart>| part.filter(|p| p.name == name).map(|p| p.value.clone());
        Some(Difference { before: value_in(old), now: value_in(new), name })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(parts: &[(&str, &str)]) -> KeyRecipe {
        let mut recipe = KeyRecipe::new();
        parts.iter().for_each(|(name, value)| recipe.push(*name, *value));
        recipe
    }

    #[test]
    fn names_the_first_part_that_differs() {
        let before = recipe(&[("args", "make"), ("env", "A=1"), ("input", "x")]);
        assert_eq!(first_difference(&before, &before), None);
        let now = recipe(&[("args", "make"), ("env", "A=2"), ("input", "y")]);
        let difference = first_difference(&before, &now).unwrap();
        assert_eq!((difference.name.as_str(), difference.now.as_deref()), ("env", Some("A=2")));
        let longer = recipe(&[("args", "make"), ("env", "A=1"), ("input", "x"), ("mount", "m")]);
        let difference = first_difference(&before, &longer).unwrap();
        assert_eq!(difference, Difference { name: "mount".into(), before: None, now: Some("m".into()) });
    }
}
