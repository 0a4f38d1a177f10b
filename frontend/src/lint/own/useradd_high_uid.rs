//! `UseraddHighUid`: useradd writes login records as long as the uid is high, which some archives make gigabytes of.

use super::around::Around;

/// Below, the record files are small.
const HIGH: u64 = 100_000;

pub(super) fn check(at: &Around<'_>) {
    for useradd in at.invocations().filter(|invocation| invocation.program == "useradd") {
        let texts: Vec<&str> = useradd.args.iter().map(|word| word.text.as_str()).collect();
        let after = texts.windows(2).find(|pair| ["-u", "--uid"].contains(&pair[0])).map(|pair| pair[1]);
        let joined = texts.iter().find_map(|text| text.strip_prefix("--uid=").or_else(|| text.strip_prefix("-u")));
        let uid = after.or(joined).and_then(|uid| uid.parse::<u64>().ok());
        if uid.is_some_and(|uid| uid >= HIGH) && !useradd.has_option(&["-l", "--no-log-init"]) {
            let message = "useradd with a high uid writes a huge /var/log/lastlog: add --no-log-init";
            at.fire("UseraddHighUid", message.to_string());
        }
    }
}
