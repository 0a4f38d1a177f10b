//! `InsecureDownload`: an option that accepts whatever the network sends.

use super::around::Around;
use crate::instruction::Instruction;
use crate::shell::Invocation;

/// Variables, and the value that switches checking off.
const VARIABLES: &[(&str, &str)] =
    &[("NODE_TLS_REJECT_UNAUTHORIZED", "0"), ("PYTHONHTTPSVERIFY", "0"), ("GIT_SSL_NO_VERIFY", "")];

pub(super) fn check(at: &Around<'_>) {
    if let Instruction::Env(env) = &at.command.instruction {
        for pair in &env.pairs.pairs {
            let is_off = |(name, value): &&(&str, &str)| {
                pair.name == *name && (value.is_empty() || pair.value.trim_matches(['"', '\'']) == *value)
            };
            if VARIABLES.iter().any(|variable| is_off(&variable)) {
                let message = format!("{} switches the check of certificates off, for every container", pair.name);
                at.fire("InsecureDownload", message);
            }
        }
    }
    for invocation in at.invocations() {
        if let Some(option) = insecure_option(&invocation) {
            let message = format!(
                "`{} {option}` accepts what anyone on the way may have changed: install the certificate or key instead",
                invocation.program
            );
            at.fire("InsecureDownload", message);
        }
    }
}

fn insecure_option(invocation: &Invocation<'_>) -> Option<&'static str> {
    let options: &[&'static str] = match invocation.program {
        "curl" => &["--insecure", "-k"],
        "wget" => &["--no-check-certificate"],
        "apt-get" | "apt" => &["--allow-unauthenticated", "--force-yes", "--allow-insecure-repositories"],
        "yum" | "dnf" | "microdnf" | "zypper" => &["--nogpgcheck", "--no-gpg-checks"],
        "npm" => {
            let off = ["config", "set", "strict-ssl", "false"];
            return invocation.operands().eq(off).then_some("config set strict-ssl false");
        }
        "git" => {
            let is_off = |word: &str| word.to_ascii_lowercase().starts_with("http.sslverify=false");
            return invocation.args.iter().any(|word| is_off(&word.text)).then_some("-c http.sslVerify=false");
        }
        program if program.starts_with("pip") => &["--trusted-host"],
        _ => return None,
    };
    options.iter().copied().find(|option| invocation.has_option(&[option]))
}
