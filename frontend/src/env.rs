//! Ordered environments: `NAME=value`, each name once.

use foldhash::fast::RandomState;
use std::borrow::Borrow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Variables in an order: [`Environment::set`] makes one the last, as steps see it in what `env` prints;
/// [`Environment::set_in_place`] keeps its place, as the image's config does.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `None`: taken out.
    variables: Vec<Option<Variable>>,
    places: HashMap<ByName, usize, RandomState>,
    /// What [`Environment::shared_list`] gave, until something changes.
    list: OnceCell<Arc<Vec<Arc<str>>>>,
}

/// A variable, which several environments may have in common.
#[derive(Clone, Debug)]
pub struct Variable {
    /// `NAME=value`.
    entry: Arc<str>,
    name_len: usize,
}

impl Variable {
    /// A variable and its value.
    pub fn new(name: &str, value: &str) -> Variable {
        Variable { entry: [name, "=", value].concat().into(), name_len: name.len() }
    }

    fn name(&self) -> &str {
        &self.entry[..self.name_len]
    }

    fn value(&self) -> &str {
        &self.entry[self.name_len + 1..]
    }
}

/// A variable that is found by its name.
#[derive(Clone, Debug)]
struct ByName(Variable);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.name()
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &ByName) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for ByName {}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

impl PartialEq for Environment {
    fn eq(&self, other: &Environment) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Environment {}

impl Environment {
    /// From a list of `NAME=value`; a later entry of the same name wins. Without `=`, the value is empty.
    pub fn from_list(list: &[String]) -> Environment {
        Environment::read(list, Environment::set_variable)
    }

    /// As [`Environment::from_list`]; what is there twice has its first place.
    pub fn from_list_in_place(list: &[String]) -> Environment {
        Environment::read(list, Environment::set_variable_in_place)
    }

    fn read(list: &[String], set: fn(&mut Environment, Variable)) -> Environment {
        let mut env = Environment::default();
        for entry in list {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            set(&mut env, Variable::new(name, value));
        }
        env
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        let place = *self.places.get(name)?;
        self.variables[place].as_ref().map(Variable::value)
    }

    /// Sets a variable. It becomes the last one, wherever it was.
    pub fn set(&mut self, name: &str, value: &str) {
        self.set_variable(Variable::new(name, value));
    }

    /// As [`Environment::set`].
    pub fn set_variable(&mut self, variable: Variable) {
        self.list.take();
        let place = self.variables.len();
        if let Some(former) = self.places.insert(ByName(variable.clone()), place) {
            self.variables[former] = None;
        }
        self.variables.push(Some(variable));
        // Those that were set again leave gaps; they are closed before there are more of them than variables.
        if self.variables.len() > 2 * self.places.len() + 16 {
            self.variables.retain(Option::is_some);
            let named = self.variables.iter().flatten().enumerate();
            self.places = named.map(|(place, variable)| (ByName(variable.clone()), place)).collect();
        }
    }

    /// Sets a variable, in its place if it is there.
    pub fn set_in_place(&mut self, name: &str, value: &str) {
        self.set_variable_in_place(Variable::new(name, value));
    }

    /// As [`Environment::set_in_place`].
    pub fn set_variable_in_place(&mut self, variable: Variable) {
        match self.places.get(variable.name()) {
            Some(place) => {
                self.list.take();
                self.variables[*place] = Some(variable);
            }
            None => self.set_variable(variable),
        }
    }

    /// Takes a variable out.
    pub fn remove(&mut self, name: &str) {
        if let Some(place) = self.places.remove(name) {
            self.list.take();
            self.variables[place] = None;
        }
    }

    /// The variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> + Clone {
        self.variables.iter().flatten()
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.variables().map(|variable| (variable.name(), variable.value()))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.iter().map(|(name, _)| name)
    }

    /// As a list of `NAME=value`, in order.
    pub fn to_list(&self) -> Vec<String> {
        self.variables().map(|variable| variable.entry.as_ref().to_owned()).collect()
    }

    /// As [`Environment::to_list`], made once for all who ask between two changes, its entries once for all lists.
    pub fn shared_list(&self) -> Arc<Vec<Arc<str>>> {
        let list = || {
            let mut list = Vec::with_capacity(self.places.len());
            list.extend(self.variables().map(|variable| variable.entry.clone()));
            Arc::new(list)
        };
        self.list.get_or_init(list).clone()
    }

    /// For [`Lexer::expand`](crate::words::Lexer::expand).
    pub fn lookup(&self) -> impl Fn(&str) -> Option<String> + '_ {
        |name| self.get(name).map(str::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_makes_it_the_last() {
        let mut env = Environment::from_list(&["A=1".into(), "B=2=3".into(), "C".into(), "A=4".into()]);
        env.set("B", "5");
        env.set("D", "6");
        env.remove("C");
        assert_eq!(env.to_list(), ["A=4", "B=5", "D=6"]);
        env.set("A", "7");
        assert_eq!(env.to_list(), ["B=5", "D=6", "A=7"]);
        assert_eq!((env.get("B"), env.get("C")), (Some("5"), None));
        env.set_in_place("D", "8");
        env.set_in_place("C", "9");
        assert_eq!(env.to_list(), ["B=5", "D=8", "A=7", "C=9"]);
        for round in 0..100 {
            env.set("B", &round.to_string());
        }
        assert_eq!(env.to_list(), ["D=8", "A=7", "C=9", "B=99"]);
        assert_eq!(env.get("A"), Some("7"));
    }
}
