//! Gems of Ruby: `Gemfile.lock`, and the `.gemspec` of what is installed.

use super::package::Package;

/// `Gemfile.lock`: what stands four blanks deep below `specs:`.
pub fn lock(text: &str) -> Vec<Package> {
    let mut is_gems = false;
    let mut found = vec![];
    for line in text.lines() {
        if !line.starts_with(' ') {
            is_gems = line.trim_end() == "GEM";
        }
        let Some(spec) = line.strip_prefix("    ").filter(|spec| is_gems && !spec.starts_with(' ')) else { continue };
        let Some((name, version)) = spec.trim_end().strip_suffix(')').and_then(|spec| spec.split_once(" (")) else {
            continue;
        };
        found.push(Package::plain("gem", "", name, version));
    }
    found
}

/// `specifications/NAME-VERSION.gemspec`: assignments of literals.
pub fn gemspec(text: &str) -> Option<Package> {
    let assigned = |field: &str| {
        let line = text.lines().map(str::trim).find(|line| line.starts_with(&format!("s.{field} =")))?;
        let rest = line.split_once('=')?.1;
        let quote = rest.find(['"', '\''])?;
        let rest = &rest[quote + 1..];
        rest.find(['"', '\'']).map(|end| &rest[..end])
    };
    let package = Package::plain("gem", "", assigned("name")?, assigned("version")?);
    Some(package.licensed(assigned("licenses").or(assigned("license")).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_and_specs() {
        let text = "PATH\n  specs:\n    own (1)\n\nGEM\n  remote: https://rubygems.example/\n  specs:\n    rack (3.0.8)\n    rails (7.1.0)\n      rack (>= 2)\n\nPLATFORMS\n    x (1)\n";
        let purls: Vec<_> = lock(text).into_iter().map(|package| package.purl).collect();
        assert_eq!(purls, ["pkg:gem/rack@3.0.8", "pkg:gem/rails@7.1.0"]);
        let spec = "Gem::Specification.new do |s|\n  s.name = \"rack\".freeze\n  s.version = \"3.0.8\"\n  s.licenses = [\"MIT\".freeze]\nend\n";
        let found = gemspec(spec).unwrap();
        assert_eq!((found.purl.as_str(), found.license.as_str()), ("pkg:gem/rack@3.0.8", "MIT"));
        assert_eq!(gemspec("s.name = 1"), None);
    }
}
