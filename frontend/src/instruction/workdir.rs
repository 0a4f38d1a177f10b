//! `WORKDIR path` (reference/dockerfile.md 2.11): the directory of later steps, made if it is missing.

use super::files::unknown_on_scratch;
use super::flags::Flags;
use super::one_argument;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::lint;
use crate::op::{FileAction, FileOp, Op};
use crate::path;
use crate::placed::Placed;
use crate::stage::{LayerOf, Lowering, owner};
use crate::words::Lexer;

/// The fields of a WORKDIR.
#[derive(Clone, Debug, PartialEq)]
pub struct Workdir {
    /// Not yet expanded.
    pub path: Placed,
}

impl Workdir {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Workdir, Diagnostic> {
        let path = one_argument(node, "WORKDIR")?;
        Flags::check(node, &[])?;
        Ok(Workdir { path })
    }

    /// Changes the directory; a step makes it unless it is the root.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let written = at.expand(&self.path)?;
        lint::workdir_relative_path(at, &written);
        at.stage.workdir_is_set = true;
        // An absolute path stays as it is written, as in BuildKit; only the step sees it cleaned.
        let directory = match written.starts_with('/') {
            true => written.into_owned(),
            false => path::join(&at.stage.config.config.working_dir, &written),
        };
        at.stage.config.config.working_dir = directory.clone();
        let text = format!("WORKDIR {directory}");
        if directory == "/" {
            at.history(text, LayerOf::Nothing);
            return Ok(());
        }
        let user = &at.stage.config.config.user;
        let owner = (!user.is_empty()).then(|| owner(user));
        if let Some(name) = owner.as_ref().and_then(|owner| owner.name())
            && at.stage.root.is_none()
        {
            return Err(unknown_on_scratch(name, at));
        }
        let make = FileAction::MkDir { path: path::clean(&directory), mode: 0o755, owner, epoch: at.settings.epoch };
        let (base, inputs) = at.root_input();
        let op = FileOp { base, actions: vec![make], platform: at.stage.platform.clone() };
        let name = at.display_expanded();
        let name = at.step_name(&name);
        // Not marked by --no-cache, as in BuildKit: it runs again if what is below it did.
        at.stage.root = Some(at.add_cached(Op::File(op), inputs, name));
        at.history(text, LayerOf::Step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::op::{FileAction, Id, Owner};
    use crate::testing::*;

    #[test]
    fn directories() {
        check_history("FROM a\nWORKDIR a\nWORKDIR ../b/\nWORKDIR /x/./y/\nWORKDIR z\nWORKDIR /", &[
            "WORKDIR /a",
            "WORKDIR /b",
            "WORKDIR /x/./y/",
            "WORKDIR /x/y/z",
            "WORKDIR / (empty)",
        ]);
        check_steps("FROM scratch\nENV D=d\nWORKDIR \"/$D e\"\nWORKDIR /\nRUN x", &["[1/3] WORKDIR /d e", "[2/3] RUN x"]);
        assert_eq!(last_exec(&plan("FROM a\nWORKDIR /x/./y/\nRUN z")).cwd, "/x/y");
        check_errors("FROM a\nWORKDIR", &["WORKDIR requires exactly one argument"]);
        check_errors("FROM scratch\nUSER bob\nWORKDIR /x", &[
            "invalid user index: -1: the stage has no files yet in which \"bob\" could be known",
        ]);
    }

    #[test]
    fn owner_and_time() {
        let request = with_args(&[("SOURCE_DATE_EPOCH", "7")]);
        let plan = plan_with("FROM a\nUSER bob:2\nWORKDIR /x//y", &request);
        let owner = Owner { user: Id::Name("bob".into()), group: Some(Id::Number(2)) };
        let make = FileAction::MkDir { path: "/x/y".into(), mode: 0o755, owner: Some(owner), epoch: Some(7) };
        assert_eq!(last_actions(&plan), [make]);
        assert_eq!(plan.epoch, Some(7));
    }
}
