//! When a failed request is tried again, and after how long. Pure but for the dice.

use super::error::RegistryError;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::{Duration, SystemTime};

/// How often and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Requests in all, the first included.
    pub attempts: u32,
    /// Before the second request; doubles with each one after it.
    pub base: Duration,
    /// The longest wait, even if the registry asks for more.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy { attempts: 5, base: Duration::from_millis(300), longest: Duration::from_secs(30) }
    }
}

/// Why a request failed, and the answer's `Retry-After`.
pub type Failure = (RegistryError, Option<Duration>);

impl RetryPolicy {
    /// Makes a request until it succeeds or cannot.
    pub async fn retry<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        request: impl Fn() -> F,
    ) -> Result<T, RegistryError> {
        let mut failed = 0;
        loop {
            let (error, asked) = match request().await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            failed += 1;
            let Some(wait) = self.wait(failed, &error, asked) else { return Err(error) };
            tracing::debug!(%error, ?wait, "the request will be sent again");
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait before the next request, `failed` having failed; `None`: give up. `asked` is the answer's
    /// `Retry-After`.
    pub fn wait(&self, failed: u32, error: &RegistryError, asked: Option<Duration>) -> Option<Duration> {
        if may_pass(error) { self.delay(failed, asked) } else { None }
    }

    /// The same for what may pass, whoever asked.
    pub fn delay(&self, failed: u32, asked: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let backoff = self.base.saturating_mul(1 << (failed - 1).min(16)).min(self.longest);
        // Half of it at random, so that clients which failed together do not come back together.
        let jittered = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
        match asked {
            Some(asked) if asked > self.longest => None,
            Some(asked) => Some(asked.max(jittered)),
            None => Some(jittered),
        }
    }
}

/// Whether the same request may succeed later.
pub fn may_pass(error: &RegistryError) -> bool {
    match error {
        RegistryError::Status { status, .. } => status_may_pass(*status),
        RegistryError::Connect { .. } | RegistryError::Transport { .. } | RegistryError::Stalled { .. } => true,
        _ => false,
    }
}

/// Whether a server that answers so may answer otherwise later.
pub fn status_may_pass(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// `Retry-After` of an answer, in seconds or as a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Login;
    use super::*;

    fn answer(status: u16) -> RegistryError {
        RegistryError::Status {
            method: reqwest::Method::GET,
            url: String::new(),
            status: StatusCode::from_u16(status).unwrap(),
            message: None,
            login: Login::default(),
        }
    }

    #[test]
    fn waits_grow_and_end() {
        let policy = RetryPolicy { attempts: 4, base: Duration::from_millis(100), longest: Duration::from_millis(250) };
        for (failed, least, most) in [(1, 50, 100), (2, 100, 200), (3, 125, 250)] {
            let wait = policy.wait(failed, &answer(503), None).unwrap().as_millis();
            assert!((least..=most).contains(&wait), "{failed}: {wait}");
        }
        assert_eq!(policy.wait(4, &answer(503), None), None);
        assert_eq!(policy.wait(1, &answer(404), None), None);
        let asked = Duration::from_millis(200);
        assert_eq!(policy.wait(1, &answer(429), Some(asked)), Some(asked));
        assert_eq!(policy.wait(1, &answer(429), Some(Duration::from_secs(3600))), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let check = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(check("7"), Some(Duration::from_secs(7)));
        assert_eq!(check("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(check("soon"), None);
    }
}
