//! Requests of Azure's blob service, signed with the account's key (Azure, "Authorize with Shared Key"). Pure.

use super::objects::{Ask, encoded, hmac};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::time::SystemTime;

/// Of the service's interface.
pub(super) const VERSION: &str = "2021-08-06";

/// A container, and who asks.
#[derive(Clone)]
pub struct Azure {
    /// Without a slash at its end.
    pub account_url: String,
    pub account: String,
    pub container: String,
    /// Decoded.
    pub key: Vec<u8>,
}

impl Azure {
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.account_url, self.container)
    }

    pub(super) fn url(&self, key: &str) -> String {
        format!("{}/{}/{}", self.account_url, self.container, encoded(key))
    }

    /// Where the container itself is.
    pub(super) fn container_url(&self) -> String {
        format!("{}/{}?restype=container", self.account_url, self.container)
    }

    /// All headers of the request.
    pub(super) fn sign(&self, ask: Ask, now: SystemTime) -> Vec<(&'static str, String)> {
        let mut headers = ask.headers;
        headers.push(("x-ms-date", httpdate::fmt_http_date(now)));
        headers.push(("x-ms-version", VERSION.into()));
        let query: Vec<String> = ask.url.query_pairs().map(|(name, value)| format!("\n{name}:{value}")).collect();
        if ask.method == reqwest::Method::PUT && query.is_empty() {
            headers.push(("x-ms-blob-type", "BlockBlob".into()));
        }
        let of = |wanted: &str| {
            headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let length = if ask.length == 0 { String::new() } else { ask.length.to_string() };
        let mut own: Vec<String> = headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-ms-"))
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        own.sort_unstable();
        // Content-Encoding, -Language, -Length, -MD5, -Type, Date, If-Modified-Since, If-Match, If-None-Match,
        // If-Unmodified-Since, Range.
        let text = format!(
            "{}\n\n\n{length}\n\n\n\n\n{}\n{}\n\n\n{}/{}{}{}",
            ask.method,
            of("if-match"),
            of("if-none-match"),
            own.concat(),
            self.account,
            ask.url.path(),
            query.concat()
        );
        let signature = BASE64_STANDARD.encode(hmac(&self.key, text.as_bytes()));
        headers.push(("authorization", format!("SharedKey {}:{signature}", self.account)));
        headers
    }
}
