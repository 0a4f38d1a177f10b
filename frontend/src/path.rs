//! Paths in an image as text: absolute, `/`-separated, never looked up.

/// `path` below `base` unless it is absolute; cleaned, absolute, without a slash at the end.
pub fn join(base: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&[base, "/", path].concat()) }
}

/// Absolute, without `.`, `..` (which stop at the root), doubled slashes and a slash at the end.
pub fn clean(path: &str) -> String {
    if is_clean(path) {
        return path.to_owned();
    }
    let mut clean = String::with_capacity(path.len() + 2);
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => clean.truncate(clean.rfind('/').unwrap_or(0)),
            part => clean.extend(["/", part]),
        }
    }
    if clean.is_empty() {
        clean.push('/');
    }
    clean
}

/// Whether [`clean`] would change nothing; also false for names with a dot in front.
fn is_clean(path: &str) -> bool {
    let is_part = |pair: &[u8]| pair[0] != b'/' || !matches!(pair[1], b'/' | b'.');
    path == "/" || path.starts_with('/') && !path.ends_with('/') && path.as_bytes().windows(2).all(is_part)
}

/// The last component; `/` of the root.
pub fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("") | None => "/",
        Some(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_and_cleaned() {
        let check = |base: &str, path: &str, expect: &str| assert_eq!(join(base, path), expect, "{base} {path}");
        check("/a", "b", "/a/b");
        check("/a", "/b/", "/b");
        check("", "b", "/b");
        check("/a/b", "../../..//c/./d/", "/c/d");
        check("/a", "", "/a");
        check("/", ".", "/");
        check("/", "/.a/b.c", "/.a/b.c");
        check("/", "/a/..", "/");
        check("/", "/a.", "/a.");
        assert_eq!((base_name("/a/b/"), base_name("/"), base_name("x")), ("b", "/", "x"));
    }
}
