//! Registries that want to be convinced: logins, certificates, several names at once.

mod names;
mod tls;
