//! Rules for CI: a `.dive-ci` file, and what an image makes of it.
//!
//! The file is YAML of one form: `rules:`, and below it a name and a value a line. That much is read here; anything else
//! is refused.

use super::account::Analysis;

/// Rules that are set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Least efficiency, 0 to 1.
    pub lowest_efficiency: Option<f64>,
    /// Most wasted bytes.
    pub highest_wasted_bytes: Option<u64>,
    /// Most wasted bytes for each byte above the lowest layer, 0 to 1.
    pub highest_user_wasted: Option<f64>,
}

/// A line of a rules file that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {problem}")]
pub struct RulesError {
    /// 1 is the first.
    pub line: usize,
    pub problem: String,
}

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Verdict {
    pub rule: &'static str,
    pub passes: bool,
    /// Found and allowed.
    pub text: String,
}

impl Rules {
    /// Reads a rules file.
    pub fn parse(text: &str) -> Result<Rules, RulesError> {
        let mut rules = Rules::default();
        let mut is_open = false;
        for (number, whole) in text.lines().enumerate() {
            let failed = |problem: String| RulesError { line: number + 1, problem };
            let line = without_comment(whole);
            if line.trim().is_empty() || line.trim() == "---" {
                continue;
            }
            let Some((key, value)) = line.trim().split_once(':') else {
                return Err(failed(format!("`{}` is no `name: value`", line.trim())));
            };
            let (key, value) = (key.trim(), value.trim().trim_matches(['"', '\'']));
            if !line.starts_with([' ', '\t']) {
                if key != "rules" || !value.is_empty() {
                    return Err(failed(format!("`{key}` is unknown; rules stand below `rules:`")));
                }
                is_open = true;
                continue;
            }
            if !is_open {
                return Err(failed("rules stand below `rules:`".into()));
            }
            let fraction = || match value.parse::<f64>() {
                Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
                _ => Err(failed(format!("{key}: `{value}` is no number between 0 and 1"))),
            };
            let is_off = value == "disabled";
            match key {
                "lowestEfficiency" if is_off => rules.lowest_efficiency = None,
                "lowestEfficiency" => rules.lowest_efficiency = Some(fraction()?),
                "highestWastedBytes" if is_off => rules.highest_wasted_bytes = None,
                "highestWastedBytes" => {
                    let bytes =
                        bytes(value).ok_or_else(|| failed(format!("{key}: `{value}` is no size such as 20MB")))?;
                    rules.highest_wasted_bytes = Some(bytes);
                }
                "highestUserWastedPercent" if is_off => rules.highest_user_wasted = None,
                "highestUserWastedPercent" => rules.highest_user_wasted = Some(fraction()?),
                _ => {
                    let known = "lowestEfficiency, highestWastedBytes, highestUserWastedPercent";
                    return Err(failed(format!("there is no rule `{key}`; there are {known}")));
                }
            }
        }
        Ok(rules)
    }

    /// Holds an image against them.
    pub fn judge(&self, analysis: &Analysis) -> Vec<Verdict> {
        let shown = crate::progress::track::bytes;
        let efficiency = self.lowest_efficiency.map(|least| Verdict {
            rule: "lowestEfficiency",
            passes: analysis.efficiency >= least,
            text: format!("{}, at least {least}", shown_fraction(analysis.efficiency)),
        });
        let wasted = self.highest_wasted_bytes.map(|most| Verdict {
            rule: "highestWastedBytes",
            passes: analysis.wasted_bytes <= most,
            text: format!("{}, at most {}", shown(analysis.wasted_bytes), shown(most)),
        });
        let user = self.highest_user_wasted.map(|most| Verdict {
            rule: "highestUserWastedPercent",
            passes: analysis.user_wasted() <= most,
            text: format!("{}, at most {most}", shown_fraction(analysis.user_wasted())),
        });
        efficiency.into_iter().chain(wasted).chain(user).collect()
    }
}

/// Four digits, cut off and not rounded: 0.99999 does not reach 1.
fn shown_fraction(fraction: f64) -> f64 {
    (fraction * 10_000.0).floor() / 10_000.0
}

fn without_comment(line: &str) -> &str {
    match line.find('#') {
        Some(0) => "",
        Some(at) if line[..at].ends_with([' ', '\t']) => &line[..at],
        _ => line,
    }
}

/// Decimal units, or binary ones with an `i`; a number alone is bytes.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim().to_ascii_lowercase();
    let (letter, base) = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => return Some(number as u64),
        unit if unit.ends_with('i') => (&unit[..unit.len() - 1], 1024f64),
        unit => (unit, 1000f64),
    };
    let power = ["k", "m", "g", "t"].iter().position(|known| *known == letter)?;
    Some((number * base.powi(power as i32 + 1)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_files() {
        let text = "# for CI\nrules:\n  lowestEfficiency: 0.95  # of 1\n\n  highestWastedBytes: \"20MB\"\n  highestUserWastedPercent: disabled\n";
        let expect =
            Rules { lowest_efficiency: Some(0.95), highest_wasted_bytes: Some(20_000_000), highest_user_wasted: None };
        assert_eq!(Rules::parse(text).unwrap(), expect);
        let check = |text: &str, line: usize, problem: &str| {
            let error = Rules::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.problem.contains(problem), "{text}: {error}");
        };
        check("lowestEfficiency: 1", 1, "below `rules:`");
        check("rules:\n  lowestEfficency: 1", 2, "there is no rule `lowestEfficency`");
        check("rules:\n  lowestEfficiency: 95", 2, "between 0 and 1");
        check("rules:\n  highestWastedBytes: many", 2, "no size");
        check("rules:\n  - a", 2, "no `name: value`");
        check("\n  lowestEfficiency: 1", 2, "below `rules:`");
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expect: Option<u64>| assert_eq!(bytes(text), expect, "{text}");
        check("20MB", Some(20_000_000));
        check("1.5 kB", Some(1500));
        check("2MiB", Some(2 << 20));
        check("0", Some(0));
        check("7", Some(7));
        check("7X", None);
        check("", None);
    }

    #[test]
    fn images_are_judged() {
        let mut account = super::super::account::Account::default();
        let file = |bytes| ("a".to_string(), super::super::account::Entry::File { bytes });
        account.layer(String::new(), [file(50)]);
        account.layer(String::new(), [file(50)]);
        let analysis = account.finish();
        let check = |text: &str, expect: &[bool]| {
            let verdicts = Rules::parse(text).unwrap().judge(&analysis);
            assert_eq!(verdicts.iter().map(|verdict| verdict.passes).collect::<Vec<_>>(), expect, "{text}");
        };
        check(
            "rules:\n  lowestEfficiency: 0.5\n  highestWastedBytes: 50B\n  highestUserWastedPercent: 1\n",
            &[true; 3],
        );
        check(
            "rules:\n  lowestEfficiency: 0.51\n  highestWastedBytes: 49B\n  highestUserWastedPercent: 0.9\n",
            &[false; 3],
        );
        check("rules:\n", &[]);
    }
}
