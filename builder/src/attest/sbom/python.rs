//! Packages of Python: metadata of what is installed, and lock files of pip, poetry, pipenv and uv.

use super::cargo;
use super::package::Package;
use serde_json::Value;

/// Names are compared in one form (PEP 503).
fn package(name: &str, version: &str) -> Package {
    let mut normal = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            c => normal.extend(c.to_lowercase()),
        }
    }
    Package { name: name.to_string(), ..Package::plain("pypi", "", &normal, version) }
}

/// `METADATA` of a `.dist-info`, `PKG-INFO` of an `.egg-info`: the fields before the first empty line.
pub fn metadata(text: &str) -> Option<Package> {
    let head = text.split("\n\n").next().unwrap_or_default();
    let get = |wanted: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(name, _)| *name == wanted).map(|(_, value)| value.trim())
    };
    let license = get("License-Expression").or(get("License")).unwrap_or_default();
    Some(package(get("Name")?, get("Version")?).licensed(license))
}

/// `requirements.txt`: the lines that pin a version.
pub fn requirements(text: &str) -> Vec<Package> {
    let pinned = |line: &str| {
        let line = line.split([';', '#', '\\']).next().unwrap_or_default().trim();
        if line.starts_with('-') {
            return None;
        }
        let (name, version) = line.split_once("==")?;
        let name = name.split('[').next().unwrap_or_default().trim();
        let version = version.trim_start_matches('=').split([',', ' ']).next().unwrap_or_default().trim();
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        (is_name && !version.is_empty() && !version.contains('*')).then(|| package(name, version))
    };
    text.lines().filter_map(pinned).collect()
}

/// `poetry.lock` and `uv.lock`. The project itself is in the latter, too, and left out.
pub fn toml_lock(text: &str) -> Result<Vec<Package>, String> {
    let entries = cargo::entries(text)?;
    let found = entries.iter().filter_map(|entry| {
        let own = |source: &toml::Value| ["editable", "virtual"].iter().any(|kind| source.get(kind).is_some());
        if entry.get("source").is_some_and(own) {
            return None;
        }
        Some(package(entry.get("name")?.as_str()?, entry.get("version")?.as_str()?))
    });
    Ok(found.collect())
}

/// `Pipfile.lock`.
pub fn pipfile_lock(text: &str) -> Result<Vec<Package>, String> {
    let lock: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let groups = ["default", "develop"].into_iter().filter_map(|group| lock[group].as_object());
    let found = groups.flatten().filter_map(|(name, entry)| {
        let version = entry["version"].as_str()?.trim_start_matches('=');
        Some(package(name, version))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purls(packages: &[Package]) -> Vec<&str> {
        packages.iter().map(|package| package.purl.as_str()).collect()
    }

    #[test]
    fn installed_packages() {
        let text = "Metadata-Version: 2.1\nName: Flask_Login\nVersion: 0.6.3\nLicense: MIT\n\nName: none\n";
        let found = metadata(text).unwrap();
        assert_eq!((found.purl.as_str(), found.name.as_str()), ("pkg:pypi/flask-login@0.6.3", "Flask_Login"));
        assert_eq!(found.license, "MIT");
        assert_eq!(metadata("Version: 1\n"), None);
    }

    #[test]
    fn locks() {
        let text = "# pinned\nflask==3.0.0 \\\n    --hash=sha256:00\nrequests[socks]==2.31.0; python_version > '3'\nurllib3>=1\n-r other.txt\nx==1.*\n";
        assert_eq!(purls(&requirements(text)), ["pkg:pypi/flask@3.0.0", "pkg:pypi/requests@2.31.0"]);
        let uv = "version = 1\n[[package]]\nname = \"app\"\nversion = \"0\"\nsource = { virtual = \".\" }\n[[package]]\nname = \"anyio\"\nversion = \"4.0\"\nsource = { registry = \"https://pypi.example/simple\" }\n";
        assert_eq!(purls(&toml_lock(uv).unwrap()), ["pkg:pypi/anyio@4.0"]);
        assert!(toml_lock("[[").is_err());
        let pipfile = r#"{"default": {"six": {"version": "==1.16.0"}}, "develop": {"here": {"path": "."}}}"#;
        assert_eq!(purls(&pipfile_lock(pipfile).unwrap()), ["pkg:pypi/six@1.16.0"]);
    }
}
