//! Packages of PHP: `composer.lock`, and `vendor/composer/installed.json`.

use super::package::Package;
use serde_json::Value;

/// Either file.
pub fn lock(text: &str) -> Result<Vec<Package>, String> {
    let lock: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let lists = [&lock, &lock["packages"], &lock["packages-dev"]];
    let entries = lists.into_iter().filter_map(Value::as_array).flatten();
    let found = entries.filter_map(|entry| {
        let (name, version) = (entry["name"].as_str()?, entry["version"].as_str()?);
        let licenses: Vec<&str> = entry["license"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // Of several, the user chooses.
        Some(Package::scoped("composer", name, version).licensed(&licenses.join(" OR ")))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages() {
        let text = r#"{"packages": [{"name": "monolog/monolog", "version": "3.5.0", "license": ["MIT"]}], "packages-dev": []}"#;
        let found = lock(text).unwrap();
        assert_eq!((found[0].purl.as_str(), found[0].license.as_str()), ("pkg:composer/monolog/monolog@3.5.0", "MIT"));
        assert!(lock("[").is_err());
    }
}
