//! `SecretValueWritten`: a value that has the shape of a token, a key or a password in a URL. What it is called does
//! not matter; that is `SecretsUsedInArgOrEnv`.

use super::around::Around;
use crate::instruction::Instruction;

pub(super) fn check(at: &Around<'_>) {
    let mut kinds: Vec<&'static str> = vec![];
    match &at.command.instruction {
        Instruction::Env(env) => kinds.extend(env.pairs.pairs.iter().filter_map(|pair| secret_in(&pair.value))),
        Instruction::Label(label) => kinds.extend(label.pairs.pairs.iter().filter_map(|pair| secret_in(&pair.value))),
        Instruction::Arg(arg) => {
            kinds.extend(
                arg.declarations.iter().filter_map(|arg| secret_in(arg.default.as_deref().unwrap_or_default())),
            );
        }
        _ => {}
    }
    if let Some(run) = &at.run {
        for command in &run.script.commands {
            let assigned = command.assignments.iter().map(|(_, word)| word);
            let words = command.words.iter().chain(assigned);
            kinds.extend(words.filter_map(|word| secret_in(&word.text)));
        }
        kinds.extend(run.script.documents.iter().filter_map(|document| secret_in(&document.body)));
    }
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let message = format!(
            "{kind} stands in the Dockerfile, and in the image's history: revoke it, and use RUN --mount=type=secret"
        );
        at.fire("SecretValueWritten", message);
    }
}

/// Beginnings of tokens, how many characters of a token follow at least, and what they are.
const TOKENS: &[(&str, usize, &str)] = &[
    ("ghp_", 30, "A GitHub token"),
    ("gho_", 30, "A GitHub token"),
    ("ghs_", 30, "A GitHub token"),
    ("ghu_", 30, "A GitHub token"),
    ("github_pat_", 30, "A GitHub token"),
    ("glpat-", 18, "A GitLab token"),
    ("AKIA", 16, "An AWS access key"),
    ("ASIA", 16, "An AWS access key"),
    ("AIza", 33, "A Google API key"),
    ("xoxb-", 20, "A Slack token"),
    ("xoxp-", 20, "A Slack token"),
    ("xapp-", 20, "A Slack token"),
    ("sk_live_", 20, "A Stripe key"),
    ("rk_live_", 20, "A Stripe key"),
    ("sk-ant-", 20, "An Anthropic API key"),
    ("sk-proj-", 20, "An OpenAI API key"),
    ("npm_", 34, "An npm token"),
    ("pypi-AgEI", 40, "A PyPI token"),
    ("dckr_pat_", 20, "A Docker Hub token"),
    ("hf_", 32, "A Hugging Face token"),
    ("SG.", 60, "A SendGrid key"),
    ("dop_v1_", 60, "A DigitalOcean token"),
];

/// What secret a text holds, if it looks as if.
fn secret_in(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return Some("A private key");
    }
    if let Some((_, _, kind)) = TOKENS.iter().find(|(start, length, _)| has_token(text, start, *length)) {
        return Some(kind);
    }
    has_password_in_url(text).then_some("A password in a URL")
}

fn has_token(text: &str, start: &str, length: usize) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.';
    text.match_indices(start).any(|(index, _)| {
        let follows_word = text[..index].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        let token: String = text[index + start.len()..].chars().take_while(|c| is_token(*c)).take(200).collect();
        // Words such as `npm_config_…` have no digits.
        let is_random = token.chars().any(|c| c.is_ascii_digit()) && token.chars().any(|c| c.is_ascii_alphabetic());
        !follows_word && token.len() >= length && is_random
    })
}

/// `https://user:password@host`, unless a variable stands there.
fn has_password_in_url(text: &str) -> bool {
    text.match_indices("://").any(|(index, mark)| {
        let rest = &text[index + mark.len()..];
        let authority = rest.split(|c: char| c == '/' || c.is_whitespace() || "'\"?#".contains(c)).next();
        let Some((user, _)) = authority.and_then(|authority| authority.rsplit_once('@')) else { return false };
        let Some((name, password)) = user.split_once(':') else { return false };
        let is_placeholder = password.contains(['$', '<', '{', '*']) || ["password", "pass", "x"].contains(&password);
        // Local databases of examples: the password is the user's name.
        !password.is_empty() && !is_placeholder && name != password
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(secret_in(text), expect, "{text}");
        let token = |start: &str| format!("{start}{}", "a1B2".repeat(16));
        check(&token("ghp_"), Some("A GitHub token"));
        check(&format!("token={}", token("glpat-")), Some("A GitLab token"));
        check("AKIA0123456789ABCDEF", Some("An AWS access key"));
        check("-----BEGIN RSA PRIVATE KEY-----\nMII", Some("A private key"));
        check("git clone https://me:s3cret@example.com/x.git", Some("A password in a URL"));
        check("https://$USER:${TOKEN}@example.com", None);
        check("postgres://postgres:postgres@db/x", None);
        check("https://example.com/a:b@c", None);
        check("git@example.com:x/y", None);
        check("npm_config_registry", None);
        check("npm_lifecycle_event_that_is_long_but_a_word_only", None);
        check("hf_hub_download", None);
        check("ghp_short", None);
        check("", None);
    }
}
