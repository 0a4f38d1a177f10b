//! Crates of Rust: `Cargo.lock`.

use super::package::Package;

/// Its packages, the project's own among them.
pub fn lock(text: &str) -> Result<Vec<Package>, String> {
    let lock: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_string())?;
    let entries = lock.get("package").and_then(|packages| packages.as_array()).cloned().unwrap_or_default();
    let found = entries.iter().filter_map(|entry| {
        Some(Package::plain("cargo", "", entry.get("name")?.as_str()?, entry.get("version")?.as_str()?))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages() {
        let found = lock("version = 4\n[[package]]\nname = \"serde\"\nversion = \"1.0.200\"\n").unwrap();
        assert_eq!(found[0].purl, "pkg:cargo/serde@1.0.200");
        assert!(lock("version").is_err());
    }
}
