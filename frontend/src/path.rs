//! Paths in an image as text: absolute, `/`-separated, never looked up.

/// `path` below `base` unless it is absolute; cleaned, absolute, without a slash at the end.
pub fn join(base: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{base}/{path}")) }
}

/// Absolute, without `.`, `..` (which stop at the root), doubled slashes and a slash at the end.
pub fn clean(path: &str) -> String {
    let is_clean = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if path.strip_prefix('/').is_some_and(is_clean) {
        return path.to_string();
    }
    let mut parts: Vec<&str> = vec![];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
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
        assert_eq!((base_name("/a/b/"), base_name("/"), base_name("x")), ("b", "/", "x"));
    }
}
