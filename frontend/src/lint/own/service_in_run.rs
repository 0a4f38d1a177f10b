//! `ServiceInRun`: processes end with the step that started them.

use super::around::Around;

pub(super) fn check(at: &Around<'_>) {
    // A service that is started for commands that follow it has done its work.
    let Some(last) = at.run.as_ref().and_then(|run| run.script.last()) else { return };
    let Some(invocation) = last.invocation() else { return };
    let mut operands = invocation.operands();
    let verb = match invocation.program {
        "service" => operands.nth(1),
        "systemctl" | "initctl" | "rc-service" => operands.next(),
        _ if last.words.iter().any(|word| word.text.starts_with("/etc/init.d/")) => operands.next(),
        _ => return,
    };
    if verb.is_some_and(|verb| ["start", "restart", "reload"].contains(&verb)) {
        let message = format!(
            "`{}` starts a service that ends with this step: start it in CMD or ENTRYPOINT",
            super::around::shown(&invocation)
        );
        at.fire("ServiceInRun", message);
    }
}
