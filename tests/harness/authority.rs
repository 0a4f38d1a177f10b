//! A certificate authority of a test's own, made by the program `openssl`.

use crate::{installed, run};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// `ca.crt`; `server.cert` and `server.key` for loopback; `client.cert` and `client.key`.
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Makes one; `Err` says why this machine cannot.
    pub fn new() -> Result<Authority, String> {
        if !installed("openssl") {
            return Err("openssl is not installed".into());
        }
        let folder = tempfile::Builder::new().prefix("kiln-ca-").tempdir().expect("make a folder");
        let authority = Authority { folder };
        let mut root = authority.openssl(&["req", "-x509", "-nodes", "-subj", "/CN=kiln test root", "-days", "2"]);
        root.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", "ca.key", "-out", "ca.crt"]);
        run(&mut root);
        authority.sign("server", "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n");
        authority.sign("client", "extendedKeyUsage=clientAuth\n");
        Ok(authority)
    }

    fn sign(&self, name: &str, extensions: &str) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.cert"));
        let subject = format!("/CN={name}");
        let mut ask = self.openssl(&["req", "-new", "-nodes", "-subj", &subject, "-newkey", "ec"]);
        run(ask.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", &key, "-out", &request]));
        fs::write(self.path("extensions"), extensions).expect("write the extensions");
        let mut sign = self.openssl(&["x509", "-req", "-days", "2", "-CA", "ca.crt", "-CAkey", "ca.key"]);
        run(sign.args(["-CAcreateserial", "-extfile", "extensions", "-in", &request, "-out", &certificate]));
    }

    fn openssl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.args(args).current_dir(self.folder.path());
        command
    }

    /// Of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
