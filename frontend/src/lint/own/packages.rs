//! What package managers are asked to do: the subcommand and what follows it.

use crate::shell::Invocation;

/// A package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// apt-get, apt
    Apt,
    /// apk
    Apk,
    /// yum, dnf and their small kin
    Yum,
    /// zypper
    Zypper,
    /// pip, also as `python -m pip`
    Pip,
    /// npm
    Npm,
}

/// A call of a package manager.
#[derive(Debug)]
pub struct Call<'a> {
    pub manager: Manager,
    /// Such as `install`.
    pub subcommand: &'a str,
    /// What follows it and is no option.
    pub operands: Vec<&'a str>,
    pub invocation: Invocation<'a>,
}

const APT_VALUES: &[&str] = &["-o", "--option", "-t", "--target-release", "-c", "--config-file", "-a"];
const APK_VALUES: &[&str] = &["-X", "--repository", "-p", "--root", "-t", "--virtual", "--keys-dir", "--arch"];
const YUM_VALUES: &[&str] = &["-c", "-x", "--exclude", "-d", "-e", "--enablerepo", "--disablerepo", "--setopt"];
const ZYPPER_VALUES: &[&str] = &["-r", "--repo", "-R", "--root", "-t", "--type"];
const PIP_VALUES: &[&str] = &["-r", "-c", "-i", "-f", "-t", "--target", "--index-url", "--extra-index-url", "--proxy"];
const NPM_VALUES: &[&str] = &["--prefix", "--registry", "-w", "--workspace"];

/// The call that a command is, if it is one.
pub fn call(invocation: Invocation<'_>) -> Option<Call<'_>> {
    let mut args = invocation.args;
    let (manager, with_value) = match invocation.program {
        "apt-get" | "apt" => (Manager::Apt, APT_VALUES),
        "apk" => (Manager::Apk, APK_VALUES),
        "yum" | "dnf" | "dnf5" | "microdnf" | "tdnf" => (Manager::Yum, YUM_VALUES),
        "zypper" => (Manager::Zypper, ZYPPER_VALUES),
        "npm" => (Manager::Npm, NPM_VALUES),
        program if is_versioned(program, "pip") => (Manager::Pip, PIP_VALUES),
        program if is_versioned(program, "python") => {
            let module = args.iter().position(|word| word.text == "-m")?;
            if args.get(module + 1)?.text != "pip" {
                return None;
            }
            args = &args[module + 2..];
            (Manager::Pip, PIP_VALUES)
        }
        _ => return None,
    };
    let mut operands = vec![];
    let mut words = args.iter().map(|word| word.text.as_str());
    while let Some(word) = words.next() {
        if with_value.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            operands.push(word);
        }
    }
    let subcommand = if operands.is_empty() { "" } else { operands.remove(0) };
    Some(Call { manager, subcommand, operands, invocation })
}

/// `pip`, `pip3`, `pip3.11`.
fn is_versioned(program: &str, name: &str) -> bool {
    program.strip_prefix(name).is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

impl Call<'_> {
    /// Whether it puts packages into the image.
    pub fn installs(&self) -> bool {
        let names: &[&str] = match self.manager {
            Manager::Apt => &["install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "reinstall"],
            Manager::Apk => &["add", "upgrade"],
            Manager::Yum => &["install", "update", "upgrade", "groupinstall", "localinstall", "reinstall", "builddep"],
            Manager::Zypper => &["install", "in", "update", "up", "dup", "dist-upgrade", "patch"],
            Manager::Pip => &["install"],
            Manager::Npm => &["install", "i", "ci", "clean-install"],
        };
        names.contains(&self.subcommand)
    }

    /// Whether an option comes from a variable, so that one cannot know which there are.
    pub fn has_unknown_options(&self) -> bool {
        self.invocation.args.iter().any(|word| word.is_dynamic && word.text.starts_with('$') && !word.is_quoted)
    }
}
