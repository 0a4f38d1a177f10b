//! Crates of Rust: `Cargo.lock`.

use super::package::Package;

/// Its packages, the project's own among them.
pub fn lock(text: &str) -> Result<Vec<Package>, String> {
    let found = entries(text)?;
    let found = found.iter().filter_map(|entry| {
        Some(Package::plain("cargo", "", entry.get("name")?.as_str()?, entry.get("version")?.as_str()?))
    });
    Ok(found.collect())
}

/// The tables `[[package]]`, which lock files of other languages have as well.
pub fn entries(text: &str) -> Result<Vec<toml::Value>, String> {
    let mut lock: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_string())?;
    match lock.remove("package") {
        Some(toml::Value::Array(entries)) => Ok(entries),
        _ => Ok(vec![]),
    }
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
