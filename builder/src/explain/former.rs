//! The nearest former run of a step: of the builds of the same project, the one with the fewest differences.

use super::text::place_and_text;
use super::{Change, Origin};
use cache::error::StoreError;
use cache::runs::Run;
use cache::store::Store;
use solver::key::{CacheKey, KeyRecipe};
use solver::record::RecordStore;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Former runs of each degree of likeness that are looked into.
const LOOKED_INTO: usize = 8;

/// What the builds of a project used before this one.
pub struct Formers {
    /// Newest first.
    runs: Vec<Run>,
    by_key: BTreeMap<CacheKey, i64>,
    /// Position of the newest of each name.
    by_name: HashMap<String, usize>,
}

/// A former run.
pub struct Nearest {
    /// Its step's name then.
    pub name: String,
    /// What differs from it.
    pub changes: Vec<Change>,
    /// How long it took, in milliseconds.
    pub cost_ms: u64,
}

/// Where a step stands, and what it says.
#[derive(PartialEq, Eq)]
struct Placed<'a> {
    /// Platform and stage.
    stage: &'a str,
    /// Number in its stage.
    number: &'a str,
    text: &'a str,
}

impl Formers {
    /// Reads them.
    pub fn read(store: &Store, project: &str) -> Result<Formers, StoreError> {
        let runs = store.runs(project)?;
        let by_key = runs.iter().map(|run| (run.key, run.used_ms)).collect();
        // Of several of one name the last that is entered stays.
        let by_name = runs.iter().enumerate().rev().map(|(position, run)| (run.name.clone(), position)).collect();
        Ok(Formers { runs, by_key, by_name })
    }

    /// When a key was last used, milliseconds since 1970.
    pub fn used_ms(&self, key: &CacheKey) -> Option<i64> {
        self.by_key.get(key).copied()
    }

    /// How long the latest run of a step of this name took, in milliseconds.
    pub fn expected_ms(&self, store: &Store, name: &str) -> Result<Option<u64>, StoreError> {
        self.by_name.get(name).map_or(Ok(None), |position| store.cost_ms(&self.runs[*position].key))
    }

    /// The former run that is nearest to the step `name`. `names` are those of all steps of this build; `explain` says
    /// what differs from a recipe.
    pub fn nearest(
        &self,
        store: &Store,
        name: &str,
        names: &BTreeSet<String>,
        explain: &dyn Fn(&KeyRecipe) -> Result<Vec<Change>, StoreError>,
    ) -> Result<Option<Nearest>, StoreError> {
        let step = placed(name);
        let still_there: BTreeSet<(&str, &str)> =
            names.iter().map(|name| placed(name)).map(|other| (other.stage, other.text)).collect();
        let keyword = |text: &'_ str| text.split(' ').next().unwrap_or_default().to_string();
        let likeness: [&dyn Fn(&Placed<'_>) -> bool; 4] = [
            &|other| *other == step,
            &|other| (other.stage, other.text) == (step.stage, step.text),
            // The step was edited, unless what it would have been is still there, elsewhere.
            &|other| {
                (other.stage, other.number) == (step.stage, step.number)
                    && keyword(other.text) == keyword(step.text)
                    && !still_there.contains(&(other.stage, other.text))
            },
            &|other| other.text == step.text,
        ];
        let mut seen = BTreeSet::new();
        let mut best: Option<Nearest> = None;
        for alike in likeness {
            let runs = self.runs.iter().filter(|run| alike(&placed(&run.name))).take(LOOKED_INTO);
            for run in runs.filter(|run| seen.insert(run.key)).collect::<Vec<_>>() {
                let Some(record) = store.lookup(&run.key)? else { continue };
                let changes = explain(&record.recipe)?;
                // Of equals the newest.
                if best.as_ref().is_none_or(|best| changes.len() < best.changes.len()) {
                    best = Some(Nearest { name: run.name.clone(), changes, cost_ms: record.cost_ms });
                }
            }
            if best.is_some() {
                return Ok(best);
            }
        }
        // Another project's, or the same one's in another folder, as in CI: only if it is plainly the same step.
        for record in store.records_named(name, LOOKED_INTO as u32)? {
            let changes = explain(&record.recipe)?;
            if is_plainly_the_same(&changes) {
                return Ok(Some(Nearest { name: record.name, changes, cost_ms: record.cost_ms }));
            }
        }
        Ok(None)
    }
}

fn is_plainly_the_same(changes: &[Change]) -> bool {
    match changes {
        [Change::Variable { .. }] => true,
        [Change::Files { total, .. }] => (1..=3).contains(total),
        [
            Change::Base { before: Some(Origin::Image { name: old, .. }), now: Some(Origin::Image { name: new, .. }) },
        ] => old == new,
        _ => false,
    }
}

fn placed(name: &str) -> Placed<'_> {
    let (place, text) = place_and_text(name);
    let (stage, number) = place.rsplit_once(' ').unwrap_or(("", place));
    Placed { stage, number: number.split('/').next().unwrap_or_default(), text }
}
