//! Packages of Node.js: lock files of npm, yarn and pnpm, and the `package.json` of what is installed.

use super::package::Package;
use serde_json::Value;
use std::collections::BTreeSet;

fn package(name: &str, version: &str) -> Package {
    Package::scoped("npm", name, version)
}

/// `package-lock.json` and `npm-shrinkwrap.json`, of every version.
pub fn npm_lock(text: &str) -> Result<Vec<Package>, String> {
    let lock: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut found = vec![];
    if let Some(packages) = lock["packages"].as_object() {
        for (path, entry) in packages {
            // The entry without a path is the project itself; links stand for folders beside it.
            let Some((_, name)) = path.rsplit_once("node_modules/") else { continue };
            let name = entry["name"].as_str().unwrap_or(name);
            if let Some(version) = entry["version"].as_str() {
                found.push(package(name, version).licensed(entry["license"].as_str().unwrap_or_default()));
            }
        }
        return Ok(found);
    }
    let mut queue = vec![&lock["dependencies"]];
    while let Some(dependencies) = queue.pop() {
        for (name, entry) in dependencies.as_object().into_iter().flatten() {
            if let Some(version) = entry["version"].as_str() {
                found.push(package(name, version));
            }
            queue.push(&entry["dependencies"]);
        }
    }
    Ok(found)
}

/// `yarn.lock`, of the first version and of later ones.
pub fn yarn_lock(text: &str) -> Vec<Package> {
    let mut found = vec![];
    let mut name: Option<&str> = None;
    for line in text.lines() {
        if let Some(specs) = line.strip_suffix(':').filter(|line| !line.starts_with([' ', '#'])) {
            let first = specs.split(", ").next().unwrap_or_default().trim_matches('"');
            name = spec_name(first);
        } else if let Some(rest) = line.trim_start().strip_prefix("version") {
            let version = rest.trim_start_matches(':').trim().trim_matches('"');
            // Of the project's own folders.
            let is_own = version.contains("use.local");
            if let Some(name) = name.take().filter(|_| !is_own && !version.is_empty()) {
                found.push(package(name, version));
            }
        }
    }
    found
}

/// `@scope/name@npm:^1.0` -> `@scope/name`
fn spec_name(spec: &str) -> Option<&str> {
    let at = spec.get(1..)?.find('@')? + 1;
    Some(&spec[..at])
}

/// `pnpm-lock.yaml`: the keys of `packages`, which have had three forms.
pub fn pnpm_lock(text: &str) -> Vec<Package> {
    let is_old = text.lines().find_map(|line| line.strip_prefix("lockfileVersion:"));
    let is_old = is_old.is_some_and(|version| version.trim().trim_matches(['\'', '"']).starts_with('5'));
    let mut found = BTreeSet::new();
    let mut is_within = false;
    for line in text.lines() {
        if !line.starts_with([' ', '#']) && !line.is_empty() {
            is_within = line.trim_end() == "packages:";
            continue;
        }
        let Some(key) = line.strip_prefix("  ").filter(|line| is_within && !line.starts_with(' ')) else { continue };
        let Some(key) = key.trim_end().strip_suffix(':').or(key.split_once(": ").map(|(key, _)| key)) else { continue };
        let key = key.trim_matches(['\'', '"']).trim_start_matches('/');
        let key = key.split('(').next().unwrap_or_default();
        let split = match is_old {
            true => key.split('_').next().unwrap_or_default().rsplit_once('/'),
            false => key.rsplit_once('@'),
        };
        if let Some((name, version)) = split.filter(|(name, version)| !name.is_empty() && !version.is_empty()) {
            found.insert(package(name, version));
        }
    }
    found.into_iter().collect()
}

/// `package.json` of an installed package.
pub fn installed(text: &str) -> Result<Option<Package>, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (Some(name), Some(version)) = (file["name"].as_str(), file["version"].as_str()) else { return Ok(None) };
    // Old packages have an object, or a list of them.
    let license = [&file["license"], &file["license"]["type"], &file["licenses"][0]["type"]];
    let license = license.into_iter().find_map(Value::as_str).unwrap_or_default();
    Ok(Some(package(name, version).licensed(license)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purls(packages: &[Package]) -> Vec<&str> {
        packages.iter().map(|package| package.purl.as_str()).collect()
    }

    #[test]
    fn locks_of_npm() {
        let new = r#"{"lockfileVersion": 3, "packages": {"": {"name": "app", "version": "1.0.0"},
            "node_modules/@a/b": {"version": "2.0.0", "license": "MIT"},
            "node_modules/c/node_modules/d": {"version": "1.2.3"}, "node_modules/here": {"link": true}}}"#;
        assert_eq!(purls(&npm_lock(new).unwrap()), ["pkg:npm/%40a/b@2.0.0", "pkg:npm/d@1.2.3"]);
        let old = r#"{"lockfileVersion": 1, "dependencies": {"c": {"version": "1.0.0", "dependencies": {"d": {"version": "2.0.0"}}}}}"#;
        assert_eq!(purls(&npm_lock(old).unwrap()), ["pkg:npm/c@1.0.0", "pkg:npm/d@2.0.0"]);
        assert!(npm_lock("{").is_err());
    }

    #[test]
    fn locks_of_yarn_and_pnpm() {
        let first = "# yarn lockfile v1\n\n\"@a/b@^1.0\", \"@a/b@^1.1\":\n  version \"1.1.0\"\n  dependencies:\n    c \"^1\"\n\nc@^1:\n  version \"1.0.0\"\n";
        assert_eq!(purls(&yarn_lock(first)), ["pkg:npm/%40a/b@1.1.0", "pkg:npm/c@1.0.0"]);
        let berry = "__metadata:\n  version: 6\n\n\"c@npm:^1\":\n  version: 1.0.1\n\n\"app@workspace:.\":\n  version: 0.0.0-use.local\n";
        assert_eq!(purls(&yarn_lock(berry)), ["pkg:npm/c@1.0.1"]);
        let v9 = "lockfileVersion: '9.0'\n\npackages:\n\n  '@a/b@1.0.0':\n    resolution: {integrity: x}\n\n  c@2.0.0:\n    resolution: {}\n\nsnapshots:\n\n  d@3.0.0: {}\n";
        assert_eq!(purls(&pnpm_lock(v9)), ["pkg:npm/%40a/b@1.0.0", "pkg:npm/c@2.0.0"]);
        let v6 = "lockfileVersion: '6.0'\npackages:\n  /c@2.0.0(d@1.0.0):\n    resolution: {}\n";
        assert_eq!(purls(&pnpm_lock(v6)), ["pkg:npm/c@2.0.0"]);
        let v5 = "lockfileVersion: 5.4\npackages:\n  /@a/b/1.0.0_d@1.0.0:\n    resolution: {}\n";
        assert_eq!(purls(&pnpm_lock(v5)), ["pkg:npm/%40a/b@1.0.0"]);
    }

    #[test]
    fn installed_packages() {
        let old = installed(r#"{"name": "c", "version": "1.0.0", "licenses": [{"type": "MIT"}]}"#).unwrap().unwrap();
        assert_eq!((old.purl.as_str(), old.license.as_str()), ("pkg:npm/c@1.0.0", "MIT"));
        assert_eq!(installed(r#"{"type": "module"}"#), Ok(None));
    }
}
