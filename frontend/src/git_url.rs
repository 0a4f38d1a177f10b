//! Which sources are git repositories or URLs, and what their queries say (reference/dockerfile.md 2.7).

use crate::csv;
use crate::op::GitSource;

/// What the URL of a git source says.
#[derive(Clone, Debug, PartialEq)]
pub struct GitUrl {
    /// The repository, without query and fragment. May hold a user and a password.
    pub remote: String,
    /// Branch, tag, full reference or commit; from the fragment or the query.
    pub reference: Option<String>,
    /// Directory of the repository that becomes the root: relative, without `.` and `..`; empty is the whole.
    pub subdir: String,
    /// Commit, or hex prefix of it, that the reference must name.
    pub checksum: Option<String>,
    /// Whether to keep `.git`.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are filled.
    pub submodules: bool,
    /// Files get the time of the commit, not that of the checkout.
    pub commit_times: bool,
    /// The checksum is the commit; the remote's reference is not compared with it.
    pub fetch_by_commit: bool,
}

/// Whether a source is fetched over HTTP(S) as a file.
pub fn is_http(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://")) && matches!(GitUrl::parse(source), Ok(None))
}

/// A URL without its password; that of HTTP(S) without the user too, who may be a token.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let Some((user_info, host)) = authority.rsplit_once('@') else { return url.to_string() };
    let hides_user = scheme.to_ascii_lowercase().starts_with("http");
    let shown = match user_info.split_once(':') {
        Some((user, _)) if !hides_user => format!("{user}:xxxxx"),
        Some(_) => "xxxxx:xxxxx".to_string(),
        None if hides_user => "xxxxx".to_string(),
        None => user_info.to_string(),
    };
    format!("{scheme}://{shown}@{host}{}", &rest[authority.len()..])
}

/// The name of the file that a URL gives: the last part of its path, decoded.
pub fn http_file_name(url: &str) -> String {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = after_scheme.find(['?', '#']).unwrap_or(after_scheme.len());
    let path = after_scheme[..end].split_once('/').map_or("", |(_, path)| path);
    let name = percent_decoded(path.trim_end_matches('/'));
    match name.rsplit('/').next() {
        Some("" | "." | "..") | None => "__unnamed__".to_string(),
        Some(name) => name.to_string(),
    }
}

/// `%20` as a blank; what is no valid escape, or not UTF-8, is left as it is.
pub fn percent_decoded(text: &str) -> String {
    String::from_utf8(percent_decoded_bytes(text.as_bytes())).unwrap_or_else(|_| text.to_string())
}

/// The same of bytes, whatever text they are.
pub fn percent_decoded_bytes(mut text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = vec![];
    while let [first, ..] = text {
        let escaped = match text {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        let (byte, length) = escaped.map_or((*first, 1), |(high, low)| ((high * 16 + low) as u8, 3));
        bytes.push(byte);
        text = &text[length..];
    }
    bytes
}

impl GitUrl {
    /// `None` if the source is no git repository; an error if its query is wrong. `github.com/x/y` without a scheme
    /// is a path, not a repository.
    pub fn parse(source: &str) -> Result<Option<GitUrl>, String> {
        // All forms have one.
        if !source.contains(':') {
            return Ok(None);
        }
        let (location, fragment) = source.split_once('#').unwrap_or((source, ""));
        let (address, query) = location.split_once('?').unwrap_or((location, ""));
        let (is_git, fragment) = match address.split_once("://") {
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "git" | "ssh" => (true, percent_decoded(fragment)),
                "http" | "https" => (rest.contains('/') && rest.ends_with(".git"), percent_decoded(fragment)),
                _ => (false, String::new()),
            },
            None => (is_scp_form(address), fragment.to_string()),
        };
        if !is_git {
            return Ok(None);
        }
        GitUrl::of(address, &fragment, query).map(Some)
    }

    /// The same for a build context, where `github.com/x/y` is a repository too.
    pub fn parse_context(context: &str) -> Result<Option<GitUrl>, String> {
        if !context.starts_with("github.com/") {
            return GitUrl::parse(context);
        }
        let (location, fragment) = context.split_once('#').unwrap_or((context, ""));
        let (address, query) = location.split_once('?').unwrap_or((location, ""));
        GitUrl::of(&format!("https://{address}"), &percent_decoded(fragment), query).map(Some)
    }

    fn of(remote: &str, fragment: &str, query: &str) -> Result<GitUrl, String> {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut url = GitUrl {
            remote: remote.to_string(),
            reference: (!reference.is_empty()).then(|| reference.to_string()),
            subdir: relative(subdir),
            checksum: None,
            keep_git_dir: None,
            submodules: true,
            commit_times: false,
            fetch_by_commit: false,
        };
        url.read_query(query)?;
        Ok(url)
    }

    /// As a source of the build.
    pub fn source(self) -> GitSource {
        GitSource {
            remote: self.remote,
            reference: self.reference,
            subdir: self.subdir,
            checksum: self.checksum,
            keep_git_dir: self.keep_git_dir.unwrap_or(false),
            submodules: self.submodules,
            commit_times: self.commit_times,
            fetch_by_commit: self.fetch_by_commit,
        }
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let mut seen: Vec<String> = vec![];
        let mut tag = None;
        let mut branch = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (percent_decoded(key), percent_decoded(value));
            if seen.contains(&key) {
                return Err(format!("query {key:?} has multiple values"));
            }
            if value.is_empty() && !["submodules", "keep-git-dir", "fetch-by-commit"].contains(&key.as_str()) {
                return Err(format!("query {key:?} has no value"));
            }
            match key.as_str() {
                "ref" => merge(&mut self.reference, "ref", value)?,
                "subdir" if self.subdir.is_empty() => self.subdir = relative(&value),
                "subdir" if self.subdir == relative(&value) => {}
                "subdir" => return Err(format!("subdir conflicts: {:?} vs {value:?}", self.subdir)),
                "tag" => tag = Some(with_prefix("refs/tags/", &value)),
                "branch" => branch = Some(with_prefix("refs/heads/", &value)),
                "checksum" | "commit" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(boolean(&key, &value)?),
                "submodules" => self.submodules = boolean(&key, &value)?,
                "fetch-by-commit" => self.fetch_by_commit = boolean(&key, &value)?,
                "mtime" if value == "checkout" || value == "commit" => self.commit_times = value == "commit",
                "mtime" => {
                    return Err(format!("invalid mtime value: {value:?} (must be \"checkout\" or \"commit\")"));
                }
                _ => return Err(format!("unexpected query {key:?}")),
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".to_string());
        }
        match tag.or(branch) {
            Some(reference) => merge(&mut self.reference, "ref", reference),
            None => Ok(()),
        }
    }
}

/// `user@host:path`
fn is_scp_form(address: &str) -> bool {
    let Some((user, rest)) = address.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    word(user, "_-") && word(host, "-.")
}

/// A directory as a path without `.`, `..` and slashes at its ends; `..` ends at the root.
fn relative(subdir: &str) -> String {
    crate::path::clean(subdir).trim_start_matches('/').to_string()
}

fn with_prefix(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_string() } else { format!("{prefix}{name}") }
}

fn merge(known: &mut Option<String>, what: &str, value: String) -> Result<(), String> {
    match known {
        Some(other) if *other != value => Err(format!("{what} conflicts: {other:?} vs {value:?}")),
        _ => {
            *known = Some(value);
            Ok(())
        }
    }
}

/// Empty is true.
fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" => Ok(true),
        _ => csv::boolean(value).ok_or_else(|| format!("invalid {key} value: {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_repository() {
        let check = |source: &str, git: bool, http: bool| {
            assert_eq!((!matches!(GitUrl::parse(source), Ok(None)), is_http(source)), (git, http), "{source}");
        };
        check("https://host/x.git", true, false);
        check("https://host/x.git#main:sub", true, false);
        check("https://host/x.git?ref=v1", true, false);
        check("https://host/x", false, true);
        check("http://host/x.git.tar", false, true);
        check("git://host/x", true, false);
        check("ssh://git@host/x", true, false);
        check("git@host:org/x", true, false);
        check("github.com/org/x", false, false);
        check("dir/file", false, false);
        check("a@b/c:d", false, false);
        check("ftp://host/x.git", false, false);
        check("GIT://host/x", true, false);
        check("first.last@host:x", false, false);
    }

    #[test]
    fn queries() {
        let check = |query: &str, expect: Result<(Option<&str>, Option<&str>), &str>| {
            let url = GitUrl::parse(&format!("https://host/x.git{query}"));
            let url = url.map(|url| url.map(|url| (url.reference, url.subdir)).unwrap_or_default());
            let expect = expect.map(|(a, b)| (a.map(str::to_string), b.unwrap_or_default().to_string()));
            let expect = expect.map_err(str::to_string);
            assert_eq!(url, expect, "{query}");
        };
        check("", Ok((None, None)));
        check("#main:sub/dir", Ok((Some("main"), Some("sub/dir"))));
        check("?tag=v1&subdir=d", Ok((Some("refs/tags/v1"), Some("d"))));
        check("?branch=refs/heads/b", Ok((Some("refs/heads/b"), None)));
        check("?ref=a#b", Err("ref conflicts: \"b\" vs \"a\""));
        check("?tag=a&branch=b", Err("branch conflicts with tag"));
        check("?ref=", Err("query \"ref\" has no value"));
        check("?ref=a&ref=a", Err("query \"ref\" has multiple values"));
        check("?x=1", Err("unexpected query \"x\""));
        check("?keep-git-dir&submodules=false", Ok((None, None)));
        check("#main:/a/../b/./c/", Ok((Some("main"), Some("b/c"))));
        check("#:../../x", Ok((None, Some("x"))));
        check("#a%20b:c%2fd", Ok((Some("a b"), Some("c/d"))));
        check("?subdir=/d/#main:d", Ok((Some("main"), Some("d"))));
        check("?subdir=e#main:d", Err("subdir conflicts: \"d\" vs \"e\""));
        check("?mtime=now", Err("invalid mtime value: \"now\" (must be \"checkout\" or \"commit\")"));
    }

    #[test]
    fn what_is_fetched() {
        let check = |context: &str, remote: &str, expect: (bool, bool, bool)| {
            let source = GitUrl::parse_context(context).unwrap().unwrap().source();
            let flags = (source.submodules, source.commit_times, source.fetch_by_commit);
            assert_eq!((source.remote.as_str(), flags), (remote, expect), "{context}");
        };
        check("github.com/o/r#v1:d", "https://github.com/o/r", (true, false, false));
        check("git@h:o/r?submodules=0&mtime=commit#b", "git@h:o/r", (false, true, false));
        check("https://u:p@h/x.git?fetch-by-commit&commit=ab", "https://u:p@h/x.git", (true, false, true));
        check("HTTPS://h/x.git?mtime=checkout", "HTTPS://h/x.git", (true, false, false));
    }

    #[test]
    fn passwords_are_not_shown() {
        let check = |url: &str, expect: &str| assert_eq!(redacted(url), expect, "{url}");
        check("https://u:p@h/x.git#a:b", "https://xxxxx:xxxxx@h/x.git#a:b");
        check("https://token@h", "https://xxxxx@h");
        check("ssh://git@h/x", "ssh://git@h/x");
        check("ssh://git:p@h/x", "ssh://git:xxxxx@h/x");
        check("https://h/a@b", "https://h/a@b");
        check("https://h?u:p@x", "https://h?u:p@x");
        check("git@h:x", "git@h:x");
    }

    #[test]
    fn file_names() {
        let check = |url: &str, expect: &str| assert_eq!(http_file_name(url), expect, "{url}");
        check("https://h/a/b.tar?x=/y", "b.tar");
        check("https://h/", "__unnamed__");
        check("https://h", "__unnamed__");
        check("https://h/a%20b", "a b");
        check("https://h/d/", "d");
        check("https://h/%zz", "%zz");
        check("https://h/%+1%2", "%+1%2");
    }
}
