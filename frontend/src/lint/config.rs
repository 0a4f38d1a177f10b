//! Which build checks are on: the `check` directive, its build argument, and comments (reference/dockerfile.md 9.1).

/// A set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rules {
    All,
    Named(Vec<String>),
}

impl Rules {
    fn parse(text: &str) -> Rules {
        match text.trim() {
            "all" => Rules::All,
            names => Rules::Named(names.split(',').map(|name| name.trim().to_string()).collect()),
        }
    }

    fn contains(&self, rule: &str) -> bool {
        match self {
            Rules::All => true,
            Rules::Named(names) => names.iter().any(|name| name == rule),
        }
    }

    fn extend(&mut self, other: Rules) {
        match (&mut *self, other) {
            (Rules::Named(names), Rules::Named(more)) => names.extend(more),
            _ => *self = Rules::All,
        }
    }
}

/// What is skipped, what is taken in, and whether a warning is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    skip: Rules,
    experimental: Rules,
    /// Any warning fails the build.
    pub is_error: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config { skip: Rules::Named(vec![]), experimental: Rules::Named(vec![]), is_error: false }
    }
}

impl Config {
    /// No rule is on.
    pub fn skip_all() -> Config {
        Config { skip: Rules::All, ..Config::default() }
    }

    /// Parses `skip=A,B;error=true;experimental=C`; an error names the option that is not known.
    pub fn parse(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        if text.is_empty() {
            return Ok(config);
        }
        for part in text.splitn(3, ';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {part:?}"));
            };
            match key.trim() {
                "skip" => config.skip.extend(Rules::parse(value)),
                "experimental" => config.experimental.extend(Rules::parse(value)),
                "error" => {
                    config.is_error = match value.trim() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        other => {
                            return Err(format!("failed to parse check option {key:?}: invalid boolean {other:?}"));
                        }
                    }
                }
                key => return Err(format!("invalid check option {key:?}")),
            }
        }
        Ok(config)
    }

    /// This configuration and that of the first `check=` among the comments above an instruction. What is malformed
    /// there is passed over.
    pub fn with_comments(&self, comments: &[String]) -> Config {
        let text = comments.iter().find_map(|comment| comment.trim().strip_prefix("check="));
        let mut config = self.clone();
        // A remark after a blank is allowed.
        let text = text.and_then(|text| text.split_whitespace().next()).unwrap_or_default();
        if let Ok(Config { skip, experimental, .. }) = Config::parse(text) {
            config.skip.extend(skip);
            config.experimental.extend(experimental);
        }
        config
    }

    /// Whether a rule fires.
    pub fn is_on(&self, rule: &str, is_experimental: bool) -> bool {
        if is_experimental { self.experimental.contains(rule) } else { !self.skip.contains(rule) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let config = Config::parse("skip=A,B ;error=true;experimental=C").unwrap();
        assert!(config.is_error && !config.is_on("A", false) && config.is_on("D", false));
        assert!(config.is_on("C", true) && !config.is_on("D", true));
        assert!(!Config::parse("skip=all").unwrap().is_on("D", false));
        assert_eq!(Config::parse("skipp=A"), Err("invalid check option \"skipp\"".into()));
        assert_eq!(Config::parse("skip"), Err("invalid check option \"skip\"".into()));
        assert!(Config::parse("error=maybe").is_err());
        let config = Config::default();
        assert!(!config.with_comments(&["x".into(), "check=skip=A remark".into()]).is_on("A", false));
        assert_eq!(config.with_comments(&["check=nonsense".into()]), config);
    }
}
