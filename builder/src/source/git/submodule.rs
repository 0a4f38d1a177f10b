//! Submodules: where .gitmodules says that they are (gitmodules(5)). Pure.

use super::error::GitError;
use std::collections::BTreeMap;

/// A submodule of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Submodule {
    pub name: String,
    /// In the work tree.
    pub path: String,
    /// As written.
    pub url: String,
    /// `update = none`: it stays empty.
    pub is_left_out: bool,
}

/// Reads `git config --list -z` of a .gitmodules file: `key\nvalue` records. Of a key that is there twice the last counts.
pub(super) fn read(records: &[Vec<u8>]) -> Vec<Submodule> {
    let mut found: BTreeMap<String, Submodule> = BTreeMap::new();
    for record in records {
        let record = String::from_utf8_lossy(record);
        let (key, value) = record.split_once('\n').unwrap_or((&record, ""));
        let Some((name, variable)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.')) else {
            continue;
        };
        let submodule = found.entry(name.to_string()).or_default();
        submodule.name = name.to_string();
        match variable {
            "path" => submodule.path = value.trim_end_matches('/').to_string(),
            "url" => submodule.url = value.to_string(),
            "update" => submodule.is_left_out = value == "none",
            _ => {}
        }
    }
    found.into_values().collect()
}

/// Whether the name can be a path below `.git/modules`.
pub(super) fn is_safe_name(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The submodule's URL: one that begins with `./` or `../` is relative to that of the repository that has it.
pub(super) fn resolve_url(url: &str, parent: &str) -> Result<String, GitError> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Ok(url.to_string());
    }
    let mut base = parent.trim_end_matches('/').to_string();
    let mut rest = url;
    let mut separator = '/';
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            let authority = base.find("://").map_or(0, |at| at + 3);
            match base[authority..].rfind(['/', ':']) {
                Some(at) => {
                    separator = if base[authority + at..].starts_with(':') { ':' } else { '/' };
                    base.truncate(authority + at);
                }
                None => return Err(GitError::BadRemote(url.to_string())),
            }
        } else {
            return Ok(format!("{base}{separator}{}", rest.trim_end_matches('/')));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gitmodules() {
        let records = [
            "submodule.a.path\nlib/a/",
            "submodule.a.url\n../a.git",
            "submodule.a.url\nhttps://h/a.git",
            "submodule.b.c.path\nb",
            "submodule.b.c.update\nnone",
            "core.hookspath\n/x",
            "submodule.novalue",
        ];
        let found = read(&records.map(|record| record.as_bytes().to_vec()));
        let submodule = |name: &str, path: &str, url: &str, is_left_out| Submodule {
            name: name.into(),
            path: path.into(),
            url: url.into(),
            is_left_out,
        };
        assert_eq!(found, [submodule("a", "lib/a", "https://h/a.git", false), submodule("b.c", "b", "", true)]);
        for (name, safe) in
            [("a", true), ("a/b.c", true), ("../a", false), ("a/../../b", false), ("/a", false), ("", false)]
        {
            assert_eq!(is_safe_name(name), safe, "{name}");
        }
    }

    #[test]
    fn relative_urls() {
        let check = |url: &str, parent: &str, expect: &str| {
            assert_eq!(resolve_url(url, parent).unwrap_or_default(), expect, "{url} in {parent}");
        };
        check("https://x/y", "git://h/a.git", "https://x/y");
        check("../b.git", "git://h/o/a.git", "git://h/o/b.git");
        check("../../p/b.git/", "git://h/o/a.git/", "git://h/p/b.git");
        check("./b.git", "git://h/a.git", "git://h/a.git/b.git");
        check("../b.git", "git@h:a.git", "git@h:b.git");
        check("../b.git", "git@h:o/a.git", "git@h:o/b.git");
        check("../../../../b.git", "git://h/o/a.git", "");
    }
}
