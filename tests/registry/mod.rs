//! Registries that want to be convinced: logins, certificates, several names at once.

mod login;
mod manifest;
mod names;
mod proxy;
mod tls;
