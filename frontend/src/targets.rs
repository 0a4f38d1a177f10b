//! The stages of a Dockerfile, as data (`--call=targets`; BuildKit's `frontend.targets`). Needs nothing but the text:
//! bases are as written.

use crate::ast::Dockerfile;
use crate::compile::typed;
use crate::diagnostic::Diagnostic;
use crate::outline::description;
use crate::placed::Placed;
use crate::span::Span;

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Lower case; `None` if it has none.
    pub name: Option<String>,
    /// From the comment above its FROM; empty if there is none.
    pub description: String,
    /// It is built if no `--target` is given.
    pub is_default: bool,
    /// What it is built on, as written.
    pub base: String,
    /// Of FROM, as written.
    pub platform: Option<String>,
    /// The FROM.
    pub span: Span,
}

/// All stages, in file order. Fails with everything that is wrong with the text.
pub fn targets(dockerfile: &Dockerfile) -> Result<Vec<Target>, Vec<Diagnostic>> {
    let (file, errors) = typed::read(dockerfile);
    if !errors.is_empty() {
        return Err(errors);
    }
    let count = file.stages.len();
    let target = |(index, stage): (usize, typed::TypedStage)| Target {
        description: stage.from.name.as_ref().map(|name| description(&stage.from.comments, name)).unwrap_or_default(),
        is_default: index + 1 == count,
        name: stage.from.name.clone(),
        base: stage.from.image.to_string(),
        platform: stage.from.platform.as_ref().map(Placed::to_string),
        span: stage.from.span,
    };
    Ok(file.stages.into_iter().enumerate().map(target).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::SourceText;

    #[test]
    fn stages_in_order() {
        let text = "ARG V=1\n# base the tools\n# and more\nFROM --platform=$BUILDPLATFORM a:$V AS Base\nRUN x\n# none\nFROM base\n";
        let parsed = crate::parse::parse(SourceText { name: "Dockerfile".into(), text: text.into() });
        let found = targets(&parsed.dockerfile).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|t| (t.name.as_deref(), t.description.as_str(), t.is_default, t.base.as_str(), t.platform.as_deref()))
            .collect();
        let base = (Some("base"), "the tools", false, "a:$V", Some("$BUILDPLATFORM"));
        assert_eq!(shown, [base, (None, "", true, "base", None)]);
        assert_eq!(parsed.dockerfile.source.lines(found[0].span), (4, 4));
    }

    #[test]
    fn errors() {
        let parsed = crate::parse::parse(SourceText { name: "Dockerfile".into(), text: "FROM a\nFOO\nBAR".into() });
        assert_eq!(targets(&parsed.dockerfile).unwrap_err().len(), 2);
    }
}
