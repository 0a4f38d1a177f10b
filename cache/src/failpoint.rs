//! Places where a test may have the process die, to see what is left behind (feature `failpoints`).

/// Aborts the process if `KILN_FAILPOINT` names this place. Nothing without the feature `failpoints`.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reached($name);
    };
}
pub(crate) use fail_point;

#[cfg(feature = "failpoints")]
pub(crate) fn reached(name: &str) {
    if std::env::var_os("KILN_FAILPOINT").is_some_and(|wanted| wanted == name) {
        std::process::abort();
    }
}
