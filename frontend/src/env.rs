//! Ordered environments: `NAME=value`, each name once.

/// Variables in the order in which they were last set. Steps see it in what `env` prints; the image's config has its own
/// list, where a variable keeps its place ([`set_in_list`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    /// From a list of `NAME=value`; a later entry of the same name wins. Without `=`, the value is empty.
    pub fn from_list(list: &[String]) -> Environment {
        let mut env = Environment::default();
        for entry in list {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            env.set(name, value);
        }
        env
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Sets a variable. It becomes the last one, wherever it was.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.variables.push((name.to_string(), value.to_string()));
    }

    /// Takes a variable out.
    pub fn remove(&mut self, name: &str) {
        self.variables.retain(|(other, _)| other != name);
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|(name, _)| name.as_str())
    }

    /// As a list of `NAME=value`, in order.
    pub fn to_list(&self) -> Vec<String> {
        self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// For [`Lexer::expand`](crate::words::Lexer::expand).
    pub fn lookup(&self) -> impl Fn(&str) -> Option<String> + '_ {
        |name| self.get(name).map(str::to_string)
    }
}

/// Sets a variable in a list of `NAME=value`, in its place if it is there.
pub fn set_in_list(list: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match list.iter_mut().find(|other| other.split_once('=').map_or(other.as_str(), |(name, _)| name) == name) {
        Some(place) => *place = entry,
        None => list.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_in_a_list() {
        let mut list = vec!["AB=1".to_string(), "A".to_string()];
        set_in_list(&mut list, "A", "2=3");
        set_in_list(&mut list, "B", "");
        assert_eq!(list, ["AB=1", "A=2=3", "B="]);
    }

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
    }
}
