//! Registries that want to be convinced: logins, certificates, several names at once.

mod login;
mod names;
mod tls;
