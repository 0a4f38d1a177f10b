//! Which build checks are on: the `check` directive, its build argument, comments, and what the caller asks for
//! (reference/dockerfile.md 9.1; docs/checks.md for kiln's own rules).

use super::rules::{KILN_GROUP, Origin, Rule};
use crate::csv::boolean;

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

    fn names(&self, rule: &str) -> bool {
        match self {
            Rules::All => false,
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
    own: OwnChecks,
    /// Any warning fails the build.
    pub is_error: bool,
}

/// What becomes of kiln's own checks that nobody has asked for by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnChecks {
    /// They do not run. So in a build: it says what BuildKit says.
    #[default]
    Off,
    /// They give advice, which changes no exit status. So in `--check`.
    Advice,
    /// They give warnings as BuildKit's do. So in `--check=strict`.
    Warnings,
}

/// What a rule's finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the rule is off.
    Off,
    /// Good to know.
    Advice,
    /// A warning.
    Warning,
}

impl Default for Config {
    fn default() -> Config {
        let (skip, experimental) = (Rules::Named(vec![]), Rules::Named(vec![]));
        Config { skip, experimental, own: OwnChecks::Off, is_error: false }
    }
}

impl Config {
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
                    let text = value.trim();
                    let invalid = || format!("failed to parse check option {key:?}: invalid boolean {text:?}");
                    config.is_error = boolean(text).ok_or_else(invalid)?;
                }
                key => return Err(format!("invalid check option {key:?}")),
            }
        }
        Ok(config)
    }

    /// Adds what the caller asks for, beside the Dockerfile.
    pub fn with_request(mut self, own: OwnChecks, skip: &[String], experimental: &[String]) -> Config {
        self.own = own;
        let add = |rules: &mut Rules, names: &[String]| {
            names.iter().for_each(|name| rules.extend(Rules::parse(name)));
        };
        add(&mut self.skip, skip);
        add(&mut self.experimental, experimental);
        self
    }

    /// This configuration and that of the first `check=` among the comments above an instruction. What is malformed
    /// there is passed over.
    pub fn with_comments(&self, comments: &[String]) -> Config {
        let text = comments.iter().find_map(|comment| directive(comment));
        let mut config = self.clone();
        // A remark after a blank is allowed.
        let text = text.and_then(|text| text.split(' ').next()).unwrap_or_default();
        if let Ok(Config { skip, experimental, .. }) = Config::parse(text) {
            config.skip.extend(skip);
            config.experimental.extend(experimental);
        }
        config
    }

    /// Whether some rule of kiln's own may be on.
    pub fn may_have_own(&self) -> bool {
        let names_some = match &self.experimental {
            Rules::All => false,
            Rules::Named(names) => !names.is_empty(),
        };
        self.own != OwnChecks::Off || names_some
    }

    /// What a rule's finding is. `experimental=all` means BuildKit's rules only: a file that has it must not begin to
    /// fail when another program reads it.
    pub fn verdict(&self, rule: &Rule) -> Verdict {
        let warning_if = |is_on| if is_on { Verdict::Warning } else { Verdict::Off };
        let skips_all = self.skip == Rules::All;
        match rule.origin {
            Origin::BuildKit if rule.is_on => warning_if(!skips_all && !self.skip.names(rule.name)),
            Origin::BuildKit => warning_if(self.experimental == Rules::All || self.experimental.names(rule.name)),
            Origin::Kiln if self.skip.names(rule.name) => Verdict::Off,
            Origin::Kiln if self.experimental.names(rule.name) => Verdict::Warning,
            Origin::Kiln if skips_all || self.skip.names(KILN_GROUP) || !rule.is_on => Verdict::Off,
            Origin::Kiln if self.experimental.names(KILN_GROUP) => Verdict::Warning,
            Origin::Kiln => match self.own {
                OwnChecks::Off => Verdict::Off,
                OwnChecks::Advice => Verdict::Advice,
                OwnChecks::Warnings => Verdict::Warning,
            },
        }
    }
}

/// The value of `check = value`.
fn directive(comment: &str) -> Option<&str> {
    let (key, value) = comment.trim_start().split_once('=')?;
    let value = value.trim();
    (key.trim_end().eq_ignore_ascii_case("check") && !value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::super::rules::rule;
    use super::*;

    fn verdict(config: &Config, name: &str) -> Verdict {
        config.verdict(rule(name).unwrap())
    }

    #[test]
    fn options() {
        let config =
            Config::parse("skip=UndefinedVar,A ;error=true;experimental=InvalidDefinitionDescription").unwrap();
        assert!(config.is_error);
        assert_eq!(verdict(&config, "UndefinedVar"), Verdict::Off);
        assert_eq!(verdict(&config, "StageNameCasing"), Verdict::Warning);
        assert_eq!(verdict(&config, "InvalidDefinitionDescription"), Verdict::Warning);
        assert_eq!(verdict(&Config::default(), "InvalidDefinitionDescription"), Verdict::Off);
        assert_eq!(verdict(&Config::parse("skip=all").unwrap(), "UndefinedVar"), Verdict::Off);
        assert_eq!(Config::parse("skipp=A"), Err("invalid check option \"skipp\"".into()));
        assert_eq!(Config::parse("skip"), Err("invalid check option \"skip\"".into()));
        assert!(Config::parse("error=maybe").is_err());
    }

    #[test]
    fn comments() {
        let check = |comments: &[&str], expect: Verdict| {
            let comments: Vec<String> = comments.iter().map(|comment| comment.to_string()).collect();
            assert_eq!(verdict(&Config::default().with_comments(&comments), "UndefinedVar"), expect, "{comments:?}");
        };
        check(&["x", "check=skip=UndefinedVar remark"], Verdict::Off);
        check(&["Check = skip=UndefinedVar"], Verdict::Off);
        check(&["check=skip=all", "check=skip=A"], Verdict::Off);
        check(&["check=nonsense", "check=skip=UndefinedVar"], Verdict::Warning);
        check(&["checks=skip=UndefinedVar", "check=error=true"], Verdict::Warning);
    }

    #[test]
    fn own_rules() {
        let check = |own: OwnChecks, options: &str, on: Verdict, off: Verdict| {
            let config = Config::parse(options).unwrap().with_request(own, &[], &[]);
            let found = (verdict(&config, "AptGetMissingYes"), verdict(&config, "AptVersionUnpinned"));
            assert_eq!(found, (on, off), "{own:?} {options}");
        };
        use Verdict::{Advice, Off, Warning};
        check(OwnChecks::Off, "", Off, Off);
        check(OwnChecks::Advice, "", Advice, Off);
        check(OwnChecks::Warnings, "", Warning, Off);
        check(OwnChecks::Advice, "skip=kiln", Off, Off);
        check(OwnChecks::Advice, "skip=all", Off, Off);
        check(OwnChecks::Warnings, "skip=AptGetMissingYes", Off, Off);
        check(OwnChecks::Off, "experimental=kiln", Warning, Off);
        check(OwnChecks::Off, "experimental=all", Off, Off);
        check(OwnChecks::Off, "experimental=AptGetMissingYes,AptVersionUnpinned", Warning, Warning);
        check(OwnChecks::Off, "skip=kiln;experimental=AptGetMissingYes", Warning, Off);
        let named = |name: &str| vec![name.to_string()];
        let config = Config::default().with_request(OwnChecks::Off, &named("UndefinedVar"), &named("kiln"));
        assert_eq!(verdict(&config, "UndefinedVar"), Off);
        assert_eq!(verdict(&config, "AptGetMissingYes"), Warning);
    }
}
