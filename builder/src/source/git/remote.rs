//! Remotes: which ones are fetched from, who asks, and what a reference names there. Pure but for [`resolve`], which
//! asks the remote.

use super::error::GitError;
use super::program::{Call, Git};
use crate::secret::Secrets;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use frontend::git_url::redacted;
use frontend::op::GitSource;

/// A repository that kiln fetches from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// As git gets it: without what is secret in it.
    pub url: String,
    /// For messages.
    pub shown: String,
    /// `user:password` of an HTTP(S) URL.
    user_info: Option<String>,
    /// `host[:port]` of a URL.
    host: Option<String>,
    /// Keys come from an agent.
    pub is_ssh: bool,
}

/// An `Authorization` header, and the URL prefix for which git sends it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorization {
    pub scope: String,
    pub header: String,
}

/// What the value of a secret is.
enum SecretForm {
    /// The value of `Authorization`.
    Header,
    /// A password.
    Token,
}

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// A commit, or an annotated tag that names one.
    pub object: String,
    /// The commit, where the remote told that `object` is a tag.
    pub commit: Option<String>,
    /// The full name, such as `refs/heads/main`; `None` if a commit was asked for.
    pub name: Option<String>,
    /// The remote has the name, so that it can be asked for by it.
    pub has_name: bool,
}

impl Resolved {
    /// The commit, as far as is known before it is fetched.
    pub fn commit(&self) -> &str {
        self.commit.as_deref().unwrap_or(&self.object)
    }
}

impl Remote {
    /// Takes a URL or `user@host:path`.
    pub fn parse(text: &str) -> Result<Remote, GitError> {
        let bad = || GitError::BadRemote(redacted(text));
        if text.starts_with('-') || text.chars().any(char::is_control) {
            return Err(bad());
        }
        let shown = redacted(text);
        let Some((scheme, rest)) = text.split_once("://") else {
            let (user, rest) = text.split_once('@').ok_or_else(bad)?;
            let (host, path) = rest.split_once(':').ok_or_else(bad)?;
            if user.is_empty()
                || host.is_empty()
                || path.is_empty()
                || [user, host].iter().any(|part| part.contains('/'))
            {
                return Err(bad());
            }
            return Ok(Remote { url: text.into(), shown, user_info: None, host: None, is_ssh: true });
        };
        let scheme = scheme.to_ascii_lowercase();
        let (authority, path) = rest.split_at(rest.find('/').ok_or_else(bad)?);
        let (user_info, host) = match authority.rsplit_once('@') {
            Some((user_info, host)) => (Some(user_info), host),
            None => (None, authority),
        };
        // ssh would take such a host for an option.
        if host.is_empty() || host.starts_with('-') || user_info.is_some_and(|user| user.starts_with('-')) {
            return Err(bad());
        }
        let hides_user = match scheme.as_str() {
            "http" | "https" => true,
            "ssh" | "git" => false,
            _ => return Err(bad()),
        };
        let authority = if hides_user { host } else { authority };
        Ok(Remote {
            url: format!("{scheme}://{authority}{path}"),
            shown,
            user_info: user_info.filter(|_| hides_user).map(decoded),
            host: Some(host.to_string()),
            is_ssh: scheme == "ssh",
        })
    }

    /// Who asks there: secrets for the host, then those for all hosts, then what the URL says. As in BuildKit, the
    /// secrets without a host are for the repository that was asked for and not for other hosts that it names:
    /// `trusted` is that repository.
    pub fn authorization(&self, secrets: &Secrets, trusted: &Remote) -> Result<Option<Authorization>, GitError> {
        let Some(host) = self.host.as_ref().filter(|_| self.url.starts_with("http")) else { return Ok(None) };
        let ids = [
            (format!("GIT_AUTH_HEADER.{host}"), SecretForm::Header),
            (format!("GIT_AUTH_TOKEN.{host}"), SecretForm::Token),
            ("GIT_AUTH_HEADER".to_string(), SecretForm::Header),
            ("GIT_AUTH_TOKEN".to_string(), SecretForm::Token),
        ];
        let for_all = self.origin() == trusted.origin();
        for (id, form) in ids.iter().take(if for_all { 4 } else { 2 }) {
            if let Some(value) = secrets.get(id)? {
                let value = value.trim_ascii();
                let header = match form {
                    SecretForm::Header => String::from_utf8_lossy(value).into_owned(),
                    SecretForm::Token => basic(&[b"x-access-token:", value].concat()),
                };
                return Ok(Some(Authorization { scope: self.url.clone(), header }));
            }
        }
        let header = self.user_info.as_ref().map(|user_info| match user_info.contains(':') {
            true => basic(user_info.as_bytes()),
            false => basic(format!("{user_info}:").as_bytes()),
        });
        Ok(header.map(|header| Authorization { scope: self.url.clone(), header }))
    }

    /// Scheme, host and port.
    fn origin(&self) -> Option<(&str, &str)> {
        Some((self.url.split_once("://")?.0, self.host.as_deref()?))
    }
}

impl Authorization {
    /// What must not be shown: all of it, and the part after the scheme.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        let credentials = self.header.split_once(' ').map(|(_, credentials)| credentials);
        [Some(self.header.as_str()), credentials].into_iter().flatten().filter(|part| !part.is_empty())
    }
}

fn basic(user_info: &[u8]) -> String {
    format!("basic {}", BASE64_STANDARD.encode(user_info))
}

/// Percent escapes of a URL's user and password.
fn decoded(text: &str) -> String {
    frontend::git_url::percent_decoded(text)
}

/// Whether it is the whole hash of an object, SHA-1 or SHA-256.
pub(super) fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Asks the remote what the reference of a source names, unless that is a commit, and compares it with the checksum.
pub(super) async fn resolve(git: &Git, remote: &Remote, source: &GitSource) -> Result<Resolved, GitError> {
    let checksum = source.checksum.as_deref();
    if let Some(checksum) = checksum.filter(|text| text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(GitError::BadChecksum(checksum.to_string()));
    }
    let resolved = match &source.reference {
        Some(reference) if is_hash(reference) => {
            Resolved { object: reference.clone(), commit: None, name: None, has_name: false }
        }
        reference if source.fetch_by_commit => {
            let commit = checksum.unwrap_or_default();
            if !is_hash(commit) {
                return Err(GitError::FetchByCommit(commit.to_string()));
            }
            if let Some(reference) = reference {
                check_reference(reference)?;
            }
            let full = |name: &String| match name.starts_with("refs/") {
                true => name.clone(),
                false => format!("refs/heads/{name}"),
            };
            Resolved { object: commit.to_string(), commit: None, name: reference.as_ref().map(full), has_name: false }
        }
        Some(reference) => {
            check_reference(reference)?;
            let short = reference.strip_prefix("refs/").unwrap_or(reference);
            let patterns = [
                format!("refs/{short}"),
                format!("refs/{short}^{{}}"),
                format!("refs/heads/{reference}"),
                format!("refs/tags/{reference}"),
                format!("refs/tags/{reference}^{{}}"),
            ];
            let output = ls_remote(git, remote, &["--"], &patterns).await?;
            named(&output, reference)?
        }
        None => default_branch(&ls_remote(git, remote, &["--symref", "--"], &["HEAD".to_string()]).await?, remote)?,
    };
    if let Some(expected) = checksum {
        let expected = expected.to_ascii_lowercase();
        let candidates = [Some(&resolved.object), resolved.commit.as_ref()];
        if !candidates.into_iter().flatten().any(|hash| hash.starts_with(&expected)) {
            let actual = match &resolved.commit {
                Some(commit) => format!("{} or {commit}", resolved.object),
                None => resolved.object,
            };
            return Err(GitError::Checksum { expected, actual });
        }
    }
    Ok(resolved)
}

async fn ls_remote(git: &Git, remote: &Remote, options: &[&str], patterns: &[String]) -> Result<String, GitError> {
    let mut arguments = vec!["ls-remote"];
    arguments.extend(options);
    arguments.push(&remote.url);
    arguments.extend(patterns.iter().map(String::as_str));
    let output = git.run_with_patience("fetch remote", &arguments, Call::default).await?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Refuses what is no name of a reference (git-check-ref-format(1)), and so all that git would take for an option or a
/// pattern.
pub(super) fn check_reference(name: &str) -> Result<(), GitError> {
    let bad_char = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    let is_bad = name.starts_with('-')
        || name.ends_with('.')
        || name == "@"
        || name.contains("..")
        || name.contains("@{")
        || name.contains(bad_char)
        || name.split('/').any(bad_part);
    if is_bad { Err(GitError::BadReference(name.to_string())) } else { Ok(()) }
}

/// What a name stands for among the lines of ls-remote: the full reference, else the branch, else the tag.
fn named(output: &str, name: &str) -> Result<Resolved, GitError> {
    let lines = || output.lines().filter_map(|line| line.split_once('\t'));
    let find = |wanted: &str| lines().find(|(_, found)| *found == wanted).map(|(hash, _)| hash.to_string());
    let names = [
        format!("refs/{}", name.strip_prefix("refs/").unwrap_or(name)),
        format!("refs/heads/{}", name.strip_prefix("refs/heads/").unwrap_or(name)),
        format!("refs/tags/{}", name.strip_prefix("refs/tags/").unwrap_or(name)),
    ];
    for full in names {
        if let Some(object) = find(&full).filter(|hash| is_hash(hash)) {
            let commit = find(&format!("{full}^{{}}")).filter(|hash| is_hash(hash));
            return Ok(Resolved { object, commit, name: Some(full), has_name: true });
        }
    }
    let output = output.lines().take(10).collect::<Vec<_>>().join("\n");
    Err(GitError::NoReference { reference: name.to_string(), output })
}

/// What HEAD stands for among the lines of `ls-remote --symref`.
fn default_branch(output: &str, remote: &Remote) -> Result<Resolved, GitError> {
    let mut found = Resolved { object: String::new(), commit: None, name: None, has_name: true };
    for line in output.lines() {
        match line.split_once('\t') {
            Some((target, "HEAD")) => match target.strip_prefix("ref: ") {
                Some(name) => found.name = Some(name.to_string()),
                None => found.object = target.to_string(),
            },
            _ => continue,
        }
    }
    if !is_hash(&found.object) {
        return Err(GitError::NoDefaultBranch(remote.shown.clone()));
    }
    match &found.name {
        Some(name) => check_reference(name)?,
        // A server that does not tell, or a HEAD that is on no branch.
        None => found.name = Some("HEAD".to_string()),
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes() {
        let check = |text: &str, expect: Option<(&str, &str, bool)>| {
            let remote = Remote::parse(text).ok();
            let got = remote.as_ref().map(|remote| (remote.url.as_str(), remote.shown.as_str(), remote.is_ssh));
            assert_eq!(got, expect, "{text}");
        };
        check("https://u:p@h/x.git", Some(("https://h/x.git", "https://xxxxx:xxxxx@h/x.git", false)));
        check("HTTPS://h/x.git", Some(("https://h/x.git", "HTTPS://h/x.git", false)));
        check("git://h:9418/x", Some(("git://h:9418/x", "git://h:9418/x", false)));
        check("ssh://git@h/x", Some(("ssh://git@h/x", "ssh://git@h/x", true)));
        check("git@h:o/x", Some(("git@h:o/x", "git@h:o/x", true)));
        for bad in [
            "-u",
            "file:///x",
            "ext::sh -c x",
            "/x",
            "../x",
            "ssh://-oProxyCommand=x/y",
            "ssh://-x@h/y",
            "https://h",
            "h:x",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn who_asks() {
        let check = |ids: &[&str], remote: &str, trusted: &str, expect: Option<&str>| {
            let mut secrets = Secrets::default();
            ids.iter().for_each(|id| secrets.add_value(id, format!("{id}!\n").into_bytes()));
            let (remote, trusted) = (Remote::parse(remote).unwrap(), Remote::parse(trusted).unwrap());
            let header = remote.authorization(&secrets, &trusted).unwrap().map(|found| found.header);
            let plain = header.map(|header| match header.strip_prefix("basic ") {
                Some(encoded) => String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap(),
                None => header,
            });
            assert_eq!(plain.as_deref(), expect, "{ids:?}");
        };
        let (own, other) = ("https://h:8/x.git", "https://other/x.git");
        check(&["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER.h:8"], own, own, Some("GIT_AUTH_HEADER.h:8!"));
        check(&["GIT_AUTH_TOKEN", "GIT_AUTH_TOKEN.h:8"], own, own, Some("x-access-token:GIT_AUTH_TOKEN.h:8!"));
        check(&["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"], own, own, Some("GIT_AUTH_HEADER!"));
        check(&["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"], other, own, None);
        check(&["GIT_AUTH_TOKEN.other"], other, own, Some("x-access-token:GIT_AUTH_TOKEN.other!"));
        check(&["GIT_AUTH_TOKEN"], "https://h:8/y.git", own, Some("x-access-token:GIT_AUTH_TOKEN!"));
        check(&["GIT_AUTH_TOKEN"], "http://h:8/y.git", own, None);
        check(&["GIT_AUTH_TOKEN"], "git://h/y.git", "git://h/y.git", None);
        check(&[], "https://u:p%40@h/x.git", own, Some("u:p@"));
        check(&[], "https://token@h/x.git", own, Some("token:"));
        check(&[], own, own, None);
    }

    #[test]
    fn names_of_references() {
        let check = |name: &str, good: bool| assert_eq!(check_reference(name).is_ok(), good, "{name}");
        for name in ["main", "v1.0", "feature/x", "refs/pull/1/head", "a@b"] {
            check(name, true);
        }
        for name in [
            "-x",
            "--upload-pack=x",
            "a b",
            "a..b",
            "a^{}",
            "a:b",
            "*",
            "",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a.lock",
            "@",
            "a@{1}",
            "a\nb",
        ] {
            check(name, false);
        }
    }

    #[test]
    fn branches_win_over_tags_and_tags_are_peeled() {
        let hash = |digit: char| digit.to_string().repeat(40);
        let lines: String = [
            ('1', "refs/heads/both"),
            ('2', "refs/tags/both"),
            ('3', "refs/tags/annotated"),
            ('4', "refs/tags/annotated^{}"),
            ('5', "refs/pull/1/head"),
            ('6', "refs/heads/x/both"),
        ]
        .map(|(digit, name)| format!("{}\t{name}\n", hash(digit)))
        .concat();
        let check = |name: &str, expect: Option<(char, Option<char>, &str)>| {
            let expect = expect.map(|(object, commit, name)| Resolved {
                object: hash(object),
                commit: commit.map(hash),
                name: Some(name.to_string()),
                has_name: true,
            });
            assert_eq!(named(&lines, name).ok(), expect, "{name}");
        };
        check("both", Some(('1', None, "refs/heads/both")));
        check("refs/tags/both", Some(('2', None, "refs/tags/both")));
        check("annotated", Some(('3', Some('4'), "refs/tags/annotated")));
        check("pull/1/head", Some(('5', None, "refs/pull/1/head")));
        check("refs/pull/1/head", Some(('5', None, "refs/pull/1/head")));
        check("nothing", None);
    }

    #[test]
    fn the_default_branch() {
        let hash = "a".repeat(40);
        let remote = Remote::parse("git://h/x").unwrap();
        let name = |output: &str| default_branch(output, &remote).ok().and_then(|found| found.name);
        assert_eq!(name(&format!("ref: refs/heads/main\tHEAD\n{hash}\tHEAD\n")).as_deref(), Some("refs/heads/main"));
        assert_eq!(name(&format!("{hash}\tHEAD\n")).as_deref(), Some("HEAD"));
        assert_eq!(name(""), None);
    }
}
