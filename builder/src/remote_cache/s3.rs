//! Requests of S3, signed with Signature Version 4 (AWS, "Signature Version 4 signing process"). Pure.

use super::objects::{Ask, encoded, hmac};
use crate::time::rfc3339_millis;
use sha2::{Digest, Sha256};
use solver::key::hex;

/// A bucket, and who asks.
#[derive(Clone)]
pub struct S3 {
    pub bucket: String,
    pub region: String,
    /// Without a slash at its end; `None` for Amazon's.
    pub endpoint: Option<String>,
    /// The bucket is the first part of the path, and not of the host's name.
    pub path_style: bool,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl S3 {
    pub(super) fn name(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    pub(super) fn url(&self, key: &str) -> String {
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://s3.{}.amazonaws.com", self.region),
        };
        let (scheme, host) = endpoint.split_once("://").unwrap_or(("https", &endpoint));
        match self.path_style {
            true => format!("{scheme}://{host}/{}/{}", self.bucket, encoded(key)),
            false => format!("{scheme}://{}.{host}/{}", self.bucket, encoded(key)),
        }
    }

    /// All headers of the request; `now_ms` is the time since 1970.
    pub(super) fn sign(&self, ask: Ask, now_ms: i64) -> Vec<(&'static str, String)> {
        let time: String = rfc3339_millis(now_ms)[..19].chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let (time, day) = (format!("{time}Z"), time[..8].to_string());
        let host = ask.url.host_str().unwrap_or_default().to_string();
        let host = ask.url.port().map_or(host.clone(), |port| format!("{host}:{port}"));
        let mut headers = ask.headers;
        headers.push(("x-amz-content-sha256", ask.sha256.clone()));
        headers.push(("x-amz-date", time.clone()));
        headers.extend(self.session_token.iter().map(|token| ("x-amz-security-token", token.clone())));
        let mut signed: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        signed.push(("host", &host));
        signed.sort_unstable();
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let (method, path, query) = (&ask.method, ask.url.path(), ask.url.query().unwrap_or_default());
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{}", ask.sha256);
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let secret = format!("AWS4{}", self.secret_access_key);
        let key = [day.as_str(), &self.region, "s3", "aws4_request"]
            .iter()
            .fold(secret.into_bytes(), |key, part| hmac(&key, part.as_bytes()).to_vec());
        let signature = hex(&hmac(&key, text.as_bytes()));
        let id = &self.access_key_id;
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
        headers.push(("authorization", authorization));
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::{Method, Url};

    /// "GET Object" of Amazon's examples of signatures.
    #[test]
    fn the_example_of_the_documentation() {
        let s3 = S3 {
            bucket: "examplebucket".into(),
            region: "us-east-1".into(),
            endpoint: Some("https://s3.amazonaws.com".into()),
            path_style: false,
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        };
        let url = s3.url("test.txt");
        assert_eq!(url, "https://examplebucket.s3.amazonaws.com/test.txt");
        let ask = Ask {
            method: Method::GET,
            url: Url::parse(&url).unwrap(),
            headers: vec![("range", "bytes=0-9".into())],
            length: 0,
            sha256: hex(&Sha256::digest(b"")),
        };
        let headers = s3.sign(ask, 1_369_353_600_000);
        let (_, authorization) = headers.last().unwrap();
        assert!(
            authorization.ends_with("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            "{authorization}"
        );
        let path_style = S3 { path_style: true, endpoint: Some("http://h:1".into()), ..s3 };
        assert_eq!(path_style.url("b/sha256:a"), "http://h:1/examplebucket/b/sha256%3Aa");
    }
}
