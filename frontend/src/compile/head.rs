//! What the FROM of a stage says once its arguments are known: the image or stage, the platform, a named context in its
//! place. The stages themselves are in `stages.rs`.

use super::args::Globals;
use super::outside::{Outside, Site, locate_parsed, named_context};
use super::stages::{Origin, StageGraph, StagePlan};
use super::typed::TypedStage;
use crate::diagnostic::Diagnostic;
use crate::instruction::from::From;
use crate::lint::{self, Lints, Use};
use crate::placed::Placed;
use crate::platform::Platform;
use crate::reference::{Reference, ReferenceError};
use crate::stage::{Lost, Settings};
use crate::suggest::{Case, did_you_mean};
use crate::words::Expansion;
use std::cell::RefCell;

/// What a name is as a reference.
type Parsed = Result<Reference, ReferenceError>;

/// Expands FROM lines.
pub(super) struct Head<'a> {
    pub globals: &'a Globals,
    pub settings: &'a Settings<'a>,
    pub lints: &'a Lints,
}

impl Head<'_> {
    /// Fails with no error where another one is the reason.
    pub fn plan(&self, stage: &TypedStage, earlier: &StageGraph) -> Result<StagePlan, Option<Diagnostic>> {
        let from = &stage.from;
        let mut used = vec![];
        let (image, parsed) = self.image(from, &mut used)?;
        let platform = match &from.platform {
            Some(written) => Some(self.platform(from, written, &mut used)?),
            None => None,
        };
        let wanted = platform.as_ref().unwrap_or(&self.settings.target);
        let site = Site { span: from.span, word: from.image.span() };
        let name = from.name.as_deref();
        let replaced_by = name.and_then(|name| named_context(name, wanted, self.settings.request, site));
        let base = match earlier.names.get(&image) {
            Some(index) => Origin::Stage(*index),
            None => {
                let reference = parsed.unwrap_or_else(|| Reference::parse(&image));
                let outside = locate_parsed(&image, reference, wanted, self.settings.request, site);
                Origin::Outside(Box::new(outside.map_err(|message| self.bad_image(from, &image, message))?))
            }
        };
        // The base of a stage that is replaced is not looked at.
        let base = match &replaced_by {
            Some(outside) => Origin::Outside(Box::new(outside.clone())),
            None => base,
        };
        let arguments = used.into_iter().filter(|asked| asked.value.is_some()).map(|asked| asked.name).collect();
        Ok(StagePlan { arguments, platform, replaced_by, ..StagePlan::new(stage, earlier, base) })
    }

    /// Stands for a stage whose FROM is wrong: on an empty image, with any variable missing.
    pub fn unknown(&self, stage: &TypedStage, earlier: &StageGraph) -> StagePlan {
        let site = Site { span: stage.from.span, word: stage.from.image.span() };
        let base = Origin::Outside(Box::new(Outside::scratch(site)));
        StagePlan { has_triggers: true, lost: Lost::Unknown, ..StagePlan::new(stage, earlier, base) }
    }

    /// Expands a word of a FROM, and notes which arguments it asks for.
    fn expand<'w>(
        &self,
        from: &From,
        word: &'w Placed,
        used: &mut Vec<Use>,
    ) -> Result<Expansion<'w>, Option<Diagnostic>> {
        let asked = RefCell::new(std::mem::take(used));
        let lookup = |name: &str| {
            let value = self.globals.env.get(name).map(str::to_string);
            let asked_for = Use { name: name.to_string(), value: value.clone() };
            let mut asked = asked.borrow_mut();
            if !asked.contains(&asked_for) {
                asked.push(asked_for);
            }
            value
        };
        let expansion = self.settings.lexer.expand(word, &lookup);
        *used = asked.take();
        let expansion = expansion.map_err(|error| {
            let diagnostic = Diagnostic::error(error.to_string(), from.span).word(&error, word);
            Some(diagnostic).filter(|_| !self.globals.lost.explains(&error))
        })?;
        match expansion.unset.iter().any(|name| self.globals.lost.contains(name)) {
            true => Err(None),
            false => Ok(expansion),
        }
    }

    fn check_unset(&self, from: &From, expansion: &Expansion<'_>) {
        let known = self.globals.env.names();
        lint::undefined_arg_in_from(self.lints, from, &expansion.unset, &self.globals.declared, known);
    }

    /// The name, and what it is as a reference if that is known.
    fn image(&self, from: &From, used: &mut Vec<Use>) -> Result<(String, Option<Parsed>), Option<Diagnostic>> {
        let expansion = self.expand(from, &from.image, used)?;
        self.check_unset(from, &expansion);
        let mut parsed = None;
        if self.globals.defaults.is_some() && self.settings.lexer.is_plain(&from.image) {
            let reference = Reference::parse(&expansion.text);
            if reference.is_err() {
                lint::invalid_default_arg_in_from(self.lints, from);
            }
            parsed = Some(reference);
        } else if let Some(defaults) = &self.globals.defaults
            && let Ok(by_default) = self.settings.lexer.expand(&from.image, &defaults.lookup())
            && Reference::parse(&by_default.text).is_err()
        {
            lint::invalid_default_arg_in_from(self.lints, from);
        }
        if expansion.text.is_empty() {
            let message = format!("base name ({}) should not be blank", from.image);
            let error = Diagnostic::error(self.suggest(message, &expansion.unset), from.span);
            let error = error.label(from.image.span(), "comes to nothing");
            let global = expansion.unset.iter().find(|name| self.globals.declared.contains(name));
            return Err(Some(error.help(match (global, expansion.unset.first()) {
                (Some(name), _) => format!("give {name} a default, or a value with --build-arg {name}=…"),
                (None, Some(name)) => format!("declare {name} above the first FROM: ARG {name}=image"),
                (None, None) => "name an image, or scratch".to_string(),
            })));
        }
        Ok((expansion.text.into_owned(), parsed))
    }

    /// An image that cannot be one, often since an argument in its name is not set.
    fn bad_image(&self, from: &From, image: &str, message: String) -> Diagnostic {
        let remark = if from.image == *image { String::new() } else { format!("comes to {image:?}") };
        let error = Diagnostic::error(message, from.span).label(from.image.span(), remark);
        let expansion = self.settings.lexer.expand(&from.image, &self.globals.env.lookup()).unwrap_or_default();
        match expansion.unset.first() {
            Some(name) if self.globals.declared.contains(name) => {
                error.help(format!("{name} has no value: give it a default, or --build-arg {name}=…"))
            }
            Some(name) => error.help(format!("{name} has no value: declare it above the first FROM with ARG {name}=…")),
            None => error,
        }
    }

    fn platform(&self, from: &From, written: &Placed, used: &mut Vec<Use>) -> Result<Platform, Option<Diagnostic>> {
        let host = &self.settings.request.build_platform;
        let mut asked = vec![];
        let expansion = self.expand(from, written, &mut asked)?;
        self.check_unset(from, &expansion);
        lint::from_platform(self.lints, from, written, &expansion.text, &asked, host);
        used.extend(asked);
        let fail = |message: String, remark: String| {
            let message = self.suggest(message, &expansion.unset);
            Some(Diagnostic::error(message, from.span).label(written.span(), remark))
        };
        if expansion.text.is_empty() {
            let message = format!("empty platform value from expression {written}");
            return Err(fail(message, "comes to nothing".to_string()));
        }
        Platform::parse(&expansion.text, host).map_err(|error| {
            let is_literal = *written == *expansion.text;
            let remark = if is_literal { String::new() } else { format!("comes to {:?}", expansion.text) };
            fail(format!("failed to parse platform {written}: {error}"), remark)
        })
    }

    /// The message, with a known argument that may be meant by one that is not set.
    fn suggest(&self, message: String, unset: &[String]) -> String {
        let known = || self.globals.env.names().chain(self.globals.declared.iter().map(String::as_str));
        for name in unset {
            let suggested = did_you_mean(message.clone(), name, known(), Case::Sensitive);
            if suggested != message {
                return suggested;
            }
        }
        message
    }
}
