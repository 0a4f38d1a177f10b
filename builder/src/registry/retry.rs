//! When a failed request is tried again, and after how long.

use super::error::RegistryError;
use crate::progress::{Outcome, Progress};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::ffi::OsString;
use std::time::{Duration, SystemTime};

/// Overrides the patience of everything that a build asks of registries: `ATTEMPTS,BASE_MS,LONGEST_MS,BUDGET_MS`. For
/// tests, which cannot wait for minutes.
const VARIABLE: &str = "KILN_TEST_RETRY";
/// Longer waits are shown.
const SHOWN_WAIT: Duration = Duration::from_secs(1);

/// How often and how patiently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Requests in all, the first included.
    pub attempts: u32,
    /// The same to a server that never answered: more likely than down, its name is misspelt.
    pub connects: u32,
    /// Before the second request; doubles with each one after it.
    pub base: Duration,
    /// To which that grows.
    pub longest: Duration,
    /// All waits together, also those that the server asks for.
    pub budget: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 20,
            connects: 5,
            base: Duration::from_millis(300),
            longest: Duration::from_secs(30),
            budget: Duration::from_secs(180),
        }
    }
}

impl RetryPolicy {
    /// The default, unless `KILN_TEST_RETRY` says otherwise.
    pub fn from_environment(env: impl Fn(&str) -> Option<OsString>) -> RetryPolicy {
        let text = env(VARIABLE).and_then(|text| text.into_string().ok());
        text.and_then(|text| RetryPolicy::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<RetryPolicy> {
        let numbers = text.split(',').map(|word| word.trim().parse().ok()).collect::<Option<Vec<u32>>>()?;
        let [attempts, base, longest, budget] = numbers[..] else { return None };
        let time = |millis| Duration::from_millis(u64::from(millis));
        Some(RetryPolicy {
            attempts,
            connects: attempts.min(5),
            base: time(base),
            longest: time(longest),
            budget: time(budget),
        })
    }

    /// The same with no more requests than that.
    pub fn at_most(self, attempts: u32) -> RetryPolicy {
        RetryPolicy { attempts: self.attempts.min(attempts), ..self }
    }

    /// To be asked after each failure.
    pub fn begin(self) -> Retries {
        Retries { policy: self, failed: 0, waited: Duration::ZERO }
    }

    /// Makes a request until it succeeds or cannot. `progress` is where waits are shown, if they are.
    pub async fn retry<T, F: Future<Output = Result<T, RegistryError>>>(
        self,
        progress: Option<&Progress>,
        request: impl Fn() -> F,
    ) -> Result<T, RegistryError> {
        let mut retries = self.begin();
        loop {
            let error = match request().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(wait) = retries.after(&error) else { return Err(error) };
            pause(progress, wait, &error).await;
        }
    }
}

/// Waits before the next try, and says so if it takes long.
pub async fn pause(progress: Option<&Progress>, wait: Duration, error: &RegistryError) {
    tracing::debug!(%error, ?wait, "the request will be sent again");
    let shown = progress.filter(|_| wait >= SHOWN_WAIT).map(|progress| {
        progress.task(&format!("[internal] {error}: trying again in {:.0} s", wait.as_secs_f64().ceil()))
    });
    tokio::time::sleep(wait).await;
    if let Some(vertex) = shown {
        vertex.end(Outcome::Done);
    }
}

/// How often a request has failed, and how long was waited for it.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    policy: RetryPolicy,
    failed: u32,
    waited: Duration,
}

impl Retries {
    /// How long to wait before the next request, this one having failed; `None`: give up.
    pub fn after(&mut self, error: &RegistryError) -> Option<Duration> {
        if let RegistryError::Connect { met: false, .. } = error {
            self.policy.attempts = self.policy.attempts.min(self.policy.connects);
        }
        if may_pass(error) { self.delay(error.retry_after()) } else { None }
    }

    /// The same for what may pass, whoever asked. `asked` is the answer's `Retry-After`.
    pub fn delay(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= self.policy.attempts {
            return None;
        }
        let backoff = self.policy.base.saturating_mul(1 << (self.failed - 1).min(16)).min(self.policy.longest);
        // Half of it at random, so that clients which failed together do not come back together.
        let wait = backoff.mul_f64(0.5 + fastrand::f64() / 2.0).max(asked.unwrap_or_default());
        self.waited = self.waited.saturating_add(wait);
        (self.waited <= self.policy.budget).then_some(wait)
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

    fn answer(status: u16, retry_after: Option<Duration>) -> RegistryError {
        RegistryError::Status {
            method: reqwest::Method::GET,
            url: String::new(),
            status: StatusCode::from_u16(status).unwrap(),
            message: None,
            retry_after,
            login: Login::default(),
        }
    }

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 4,
        connects: 2,
        base: Duration::from_millis(100),
        longest: Duration::from_millis(250),
        budget: Duration::from_secs(10),
    };

    #[test]
    fn waits_grow_and_end() {
        let mut retries = POLICY.begin();
        for (least, most) in [(50, 100), (100, 200), (125, 250)] {
            let wait = retries.after(&answer(503, None)).unwrap().as_millis();
            assert!((least..=most).contains(&wait), "{wait}");
        }
        assert_eq!(retries.after(&answer(503, None)), None);
        assert_eq!(POLICY.begin().after(&answer(404, None)), None);
    }

    #[test]
    fn what_is_asked_for_is_waited_within_the_budget() {
        let asked = Duration::from_secs(4);
        let mut retries = POLICY.begin();
        assert_eq!(retries.after(&answer(429, Some(asked))), Some(asked));
        assert_eq!(retries.after(&answer(429, Some(asked))), Some(asked));
        assert_eq!(retries.after(&answer(429, Some(asked))), None);
    }

    #[test]
    fn the_default_waits_for_minutes() {
        let (mut retries, mut waited) = (RetryPolicy::default().begin(), Duration::ZERO);
        while let Some(wait) = retries.after(&answer(503, None)) {
            waited += wait;
        }
        assert!((90..=180).contains(&waited.as_secs()), "{waited:?}");
    }

    #[test]
    fn tests_are_impatient() {
        let read = |text: &str| RetryPolicy::from_environment(|_| Some(text.into()));
        assert_eq!(read("4,100,250,10000"), RetryPolicy { connects: 4, ..POLICY });
        assert_eq!(read("4"), RetryPolicy::default());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let check = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(check("7"), Some(Duration::from_secs(7)));
        assert_eq!(check("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(check("soon"), None);
    }
}
