//! Registries with certificates of an authority that only they know, and registries that want certificates.

use harness::{Authority, Kiln, Login, Registry, Tree, skip};
use std::fs;

fn push(kiln: &Kiln, registry: &Registry, options: &str) -> harness::Finished {
    let name = format!("{}/tls/app:1", registry.host);
    let context = Tree::dockerfile("FROM scratch\nCOPY a /a\n").file("a", "A");
    kiln.build(&context)
        .env("KILN_TEST_RETRY", "2,10,10,1000")
        .args([format!("--output=type=image,name={name},push=true{options}")])
        .run()
}

fn pulls(kiln: &Kiln, registry: &Registry) {
    let context = Tree::dockerfile(&format!("FROM {}/tls/app:1\nCOPY b /b\n", registry.host)).file("b", "B");
    assert_eq!(kiln.image(&context).text("/a"), "A");
}

fn table(registry: &Registry, settings: &str) -> String {
    format!("[registry.\"{}\"]\nhttp = false\n{settings}\n", registry.host)
}

#[test]
fn an_authority_of_ones_own() {
    let authority = match Authority::new() {
        Ok(authority) => authority,
        Err(reason) => skip!("{reason}"),
    };
    let registry = Registry::start_tls(&authority, Login::NotNeeded).unwrap();
    let unknown = push(&Kiln::with_config(&table(&registry, "")), &registry, "");
    assert_eq!(unknown.status.code(), Some(75), "{}", unknown.report());
    unknown.says(&["failed to verify certificate", "name its root as `ca`"]);

    let ca = authority.path("ca.crt");
    let kiln = Kiln::with_config(&table(&registry, &format!("ca = [\"{}\"]", ca.display())));
    assert_eq!(push(&kiln, &registry, "").status.code(), Some(0));
    pulls(&kiln, &registry);

    // A folder in Docker's form.
    let folder = tempfile::tempdir().unwrap();
    fs::copy(&ca, folder.path().join("ca.crt")).unwrap();
    let kiln = Kiln::with_config(&table(&registry, &format!("tlsconfigdir = [\"{}\"]", folder.path().display())));
    pulls(&kiln, &registry);

    // Whoever answers: by the configuration, or for one push.
    pulls(&Kiln::with_config(&table(&registry, "insecure = true")), &registry);
    let trusting = push(&Kiln::with_config(&table(&registry, "")), &registry, ",registry.insecure=true");
    assert_eq!(trusting.status.code(), Some(0), "{}", trusting.report());
    // That push is all that goes there, also what makes attestations be found.
    let kiln = Kiln::with_config(&table(&registry, ""));
    let context = Tree::dockerfile("FROM scratch\nCOPY a /a\n").file("a", "A");
    let output = format!("type=image,name={}/tls/attested:1,push=true,registry.insecure=true", registry.host);
    kiln.build(&context)
        .args(["--provenance=true".to_string(), format!("--output={output},attestation-referrers=true")])
        .ok();

    // Plain HTTP to a registry that speaks TLS.
    let plain = push(&Kiln::with_config(""), &registry, "");
    assert_eq!(plain.status.code(), Some(75), "{}", plain.report());
    plain.says(&["400 Bad Request", "if 127.0.0.1", "speaks TLS"]);
}

#[test]
fn a_certificate_in_place_of_a_login() {
    let authority = match Authority::new() {
        Ok(authority) => authority,
        Err(reason) => skip!("{reason}"),
    };
    let registry = Registry::start_tls(&authority, Login::ByCertificate).unwrap();
    let ca = format!("ca = [\"{}\"]", authority.path("ca.crt").display());
    let without = push(&Kiln::with_config(&table(&registry, &ca)), &registry, "");
    assert_eq!(without.status.code(), Some(75), "{}", without.report());

    let pair = format!(
        "{ca}\n[[registry.\"{}\".keypair]]\nkey = \"{}\"\ncert = \"{}\"",
        registry.host,
        authority.path("client.key").display(),
        authority.path("client.cert").display()
    );
    let kiln = Kiln::with_config(&table(&registry, &pair));
    assert_eq!(push(&kiln, &registry, "").status.code(), Some(0));
    pulls(&kiln, &registry);
}

#[test]
fn the_system_s_roots_may_be_others() {
    let authority = match Authority::new() {
        Ok(authority) => authority,
        Err(reason) => skip!("{reason}"),
    };
    let registry = Registry::start_tls(&authority, Login::NotNeeded).unwrap();
    let kiln = Kiln::with_config(&table(&registry, ""));
    let name = format!("{}/tls/roots:1", registry.host);
    let context = Tree::dockerfile("FROM scratch\nCOPY a /a\n").file("a", "A");
    let build = kiln.build(&context).env("SSL_CERT_FILE", &authority.path("ca.crt").display().to_string());
    build.args([format!("--output=type=image,name={name},push=true")]).ok();
}
