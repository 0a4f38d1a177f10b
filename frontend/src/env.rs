//! Ordered environments: `NAME=value`, each name once.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Variables in an order: [`Environment::set`] makes one the last, as steps see it in what `env` prints;
/// [`Environment::set_in_place`] keeps its place, as the image's config does.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `None`: taken out.
    variables: Vec<Option<Variable>>,
    places: HashMap<Rc<str>, usize>,
    /// What [`Environment::shared_list`] gave, until something changes.
    list: OnceCell<Arc<Vec<Arc<str>>>>,
}

#[derive(Clone, Debug)]
struct Variable {
    name: Rc<str>,
    /// `NAME=value`.
    entry: Arc<str>,
}

impl Variable {
    fn new(name: Rc<str>, value: &str) -> Variable {
        let entry = format!("{name}={value}").into();
        Variable { name, entry }
    }

    fn value(&self) -> &str {
        &self.entry[self.name.len() + 1..]
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
        Environment::read(list, Environment::set)
    }

    /// As [`Environment::from_list`]; what is there twice has its first place.
    pub fn from_list_in_place(list: &[String]) -> Environment {
        Environment::read(list, Environment::set_in_place)
    }

    fn read(list: &[String], set: fn(&mut Environment, &str, &str)) -> Environment {
        let mut env = Environment::default();
        for entry in list {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            set(&mut env, name, value);
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
        self.remove(name);
        // Removed ones leave gaps; they are closed before there are more of them than variables.
        if self.variables.len() > 2 * self.places.len() + 16 {
            let variables = std::mem::take(&mut self.variables);
            self.variables = variables.into_iter().filter(Option::is_some).collect();
            let named = self.variables.iter().flatten().enumerate();
            self.places = named.map(|(place, variable)| (variable.name.clone(), place)).collect();
        }
        self.push(name, value);
    }

    /// Sets a variable, in its place if it is there.
    pub fn set_in_place(&mut self, name: &str, value: &str) {
        match self.places.get(name).and_then(|place| self.variables[*place].as_mut()) {
            Some(variable) => {
                *variable = Variable::new(variable.name.clone(), value);
                self.list.take();
            }
            None => self.push(name, value),
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        self.list.take();
        let name: Rc<str> = name.into();
        self.places.insert(name.clone(), self.variables.len());
        self.variables.push(Some(Variable::new(name, value)));
    }

    /// Takes a variable out.
    pub fn remove(&mut self, name: &str) {
        if let Some(place) = self.places.remove(name) {
            self.list.take();
            self.variables[place] = None;
        }
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().flatten().map(|variable| (variable.name.as_ref(), variable.value()))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// As a list of `NAME=value`, in order.
    pub fn to_list(&self) -> Vec<String> {
        self.variables.iter().flatten().map(|variable| variable.entry.to_string()).collect()
    }

    /// As [`Environment::to_list`], made once for all who ask between two changes, its entries once for all lists.
    pub fn shared_list(&self) -> Arc<Vec<Arc<str>>> {
        let list = || Arc::new(self.variables.iter().flatten().map(|variable| variable.entry.clone()).collect());
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
