//! The arguments that a stage declares with ARG.

use std::collections::HashMap;
use std::rc::Rc;

/// An argument that a stage has declared.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredArg {
    /// Its name.
    pub name: Rc<str>,
    /// `None`: declared, but not set.
    pub value: Option<String>,
}

/// Declared arguments, in order; a name may be there several times. Kept so that each RUN can ask for all of them
/// without looking for those that are there twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeclaredArgs {
    /// The last of each name, in the order of the first.
    last: Vec<DeclaredArg>,
    /// Where each name is there.
    places: HashMap<Rc<str>, usize>,
}

impl DeclaredArgs {
    /// Declares an argument, which may have been declared before.
    pub fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(place) = self.places.get(name) {
            self.last[*place].value = value;
            return;
        }
        let name: Rc<str> = name.into();
        self.places.insert(name.clone(), self.last.len());
        self.last.push(DeclaredArg { name, value });
    }

    /// The last declaration of a name.
    pub fn get(&self, name: &str) -> Option<&DeclaredArg> {
        self.places.get(name).map(|place| &self.last[*place])
    }

    /// Each argument once, at the place of its first declaration, as its last declaration has it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &DeclaredArg> {
        self.last.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_declaration_counts_at_the_place_of_the_first() {
        let mut args = DeclaredArgs::default();
        for (name, value) in [("A", Some("1")), ("B", None), ("A", Some("2"))] {
            args.declare(name, value.map(str::to_string));
        }
        let all: Vec<_> = args.iter().map(|arg| (arg.name.as_ref(), arg.value.as_deref())).collect();
        assert_eq!(all, [("A", Some("2")), ("B", None)]);
        assert_eq!(args.get("A").and_then(|arg| arg.value.as_deref()), Some("2"));
        assert!(args.get("C").is_none());
    }
}
