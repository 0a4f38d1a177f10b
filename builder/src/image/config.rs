//! The last touches to an image config: diff_ids, the history's times, `created` (reference/engine.md 2.4 and 2.7).

use crate::time::{parse_rfc3339, rfc3339_millis};
use frontend::image_config::{HistoryEntry, ImageConfig};

/// What a config needs to know of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerFacts {
    /// Of the uncompressed tar.
    pub diff_id: String,
    /// When it was made, milliseconds since 1970; `None` for a layer of the base image.
    pub created_ms: Option<i64>,
}

/// Completes a planned config. Layers lowest first; `epoch` is `SOURCE_DATE_EPOCH` in seconds.
pub fn complete(
    mut config: ImageConfig,
    layers: &[LayerFacts],
    base_history_len: usize,
    epoch: Option<i64>,
) -> ImageConfig {
    config.rootfs.kind = "layers".into();
    config.rootfs.diff_ids = match layers {
        [] => None,
        layers => Some(layers.iter().map(|layer| layer.diff_id.clone()).collect()),
    };
    pair_with_layers(&mut config.history, layers);
    fill_times(&mut config.history);
    if let Some(epoch) = epoch {
        clamp(config.history.iter_mut().skip(base_history_len).map(|entry| &mut entry.created), epoch);
    }
    if config.created.is_none() {
        config.created = config.history.last().and_then(|entry| entry.created.clone());
    }
    if let (Some(epoch), true) = (epoch, config.created.is_some()) {
        clamp(std::iter::once(&mut config.created), epoch);
    }
    config
}

/// Gives the build's own history entries its `SOURCE_DATE_EPOCH`, in seconds, as BuildKit's frontend does: also one that
/// is still to come.
pub fn date(config: &mut ImageConfig, base_history_len: usize, epoch: i64) {
    for entry in config.history.iter_mut().skip(base_history_len) {
        entry.created = Some(rfc3339_millis(epoch * 1000));
    }
}

/// The n-th entry that is not empty belongs to the n-th layer. Surplus entries become empty ones; layers without an
/// entry get one.
fn pair_with_layers(history: &mut Vec<HistoryEntry>, layers: &[LayerFacts]) {
    let mut layers = layers.iter();
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        match layers.next() {
            Some(layer) if entry.created.is_none() => entry.created = layer.created_ms.map(rfc3339_millis),
            Some(_) => {}
            None => entry.empty_layer = true,
        }
    }
    history.extend(layers.map(|layer| HistoryEntry {
        created: layer.created_ms.map(rfc3339_millis),
        comment: "buildkit.exporter.image.v0".into(),
        ..HistoryEntry::default()
    }));
}

/// Metadata entries take the time of the layer before them; those before the first new layer that layer's, not the
/// base image's. Where no new layer follows, the last time there is.
fn fill_times(history: &mut [HistoryEntry]) {
    let Some(first_untimed) = history.iter().position(|entry| entry.created.is_none()) else { return };
    let after = history[first_untimed..].iter().find_map(|entry| entry.created.clone());
    let before = history[..first_untimed].iter().rev().find_map(|entry| entry.created.clone());
    let mut time = after.or(before);
    for entry in &mut history[first_untimed..] {
        match &entry.created {
            Some(created) => time = Some(created.clone()),
            None => entry.created = time.clone(),
        }
    }
}

/// Times that are missing or later than the epoch become the epoch.
fn clamp<'a>(times: impl Iterator<Item = &'a mut Option<String>>, epoch: i64) {
    for time in times {
        let milliseconds = time.as_deref().and_then(parse_rfc3339);
        if milliseconds.is_none_or(|milliseconds| milliseconds > epoch * 1000) {
            *time = Some(rfc3339_millis(epoch * 1000));
        }
    }
}

/// The document's bytes: compact, members in alphabetical order.
pub fn to_bytes(config: &ImageConfig) -> Vec<u8> {
    go_escape(&serde_json::to_string(config).expect("an image config is plain data")).into_bytes()
}

/// JSON as Go's encoder writes it: `<`, `>`, `&` and the line separators are escaped. They can only stand in strings.
pub fn go_escape(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// History as `time` or `-`, with `_` for entries without a layer; layers as times in seconds.
    fn check(history: &[&str], layers: &[Option<i64>], base_len: usize, epoch: Option<i64>, want: &[i64]) {
        let entry = |text: &&str| HistoryEntry {
            empty_layer: text.ends_with('_'),
            created: text.trim_end_matches('_').parse::<i64>().ok().map(|seconds| rfc3339_millis(seconds * 1000)),
            ..HistoryEntry::default()
        };
        let layers: Vec<LayerFacts> = layers
            .iter()
            .map(|time| LayerFacts { diff_id: "sha256:x".into(), created_ms: time.map(|seconds| seconds * 1000) })
            .collect();
        let config = ImageConfig { history: history.iter().map(entry).collect(), ..ImageConfig::default() };
        let config = complete(config, &layers, base_len, epoch);
        let times: Vec<i64> = config
            .history
            .iter()
            .map(|entry| {
                entry.created.as_deref().and_then(parse_rfc3339).map_or(-1, |milliseconds| milliseconds / 1000)
            })
            .collect();
        assert_eq!(times, want, "{history:?}");
        assert_eq!(config.created.as_deref().and_then(parse_rfc3339).map(|ms| ms / 1000), times.last().copied());
    }

    #[test]
    fn times_of_history() {
        check(&["5", "-_", "-", "-_", "-"], &[None, Some(10), Some(20)], 1, None, &[5, 10, 10, 10, 20]);
        check(&["5", "-_"], &[None], 1, None, &[5, 5]);
        check(&["5", "-_", "-"], &[None, Some(10)], 1, Some(7), &[5, 7, 7]);
        check(&["9", "-_", "-"], &[None, Some(10)], 1, Some(7), &[9, 7, 7]);
        // Fewer entries than layers, and more.
        check(&["-"], &[Some(1), Some(2)], 0, None, &[1, 2]);
        check(&["-", "-"], &[Some(1)], 0, None, &[1, 1]);
    }

    #[test]
    fn an_epoch_to_come_dates_history() {
        let entry =
            |created: Option<i64>| HistoryEntry { created: created.map(rfc3339_millis), ..HistoryEntry::default() };
        let mut config = ImageConfig { history: vec![entry(Some(5)), entry(None)], ..ImageConfig::default() };
        date(&mut config, 1, 4_000_000_000);
        assert_eq!(config.history, [entry(Some(5)), entry(Some(4_000_000_000_000))]);
    }

    #[test]
    fn an_image_without_layers_says_null() {
        let text = String::from_utf8(to_bytes(&complete(ImageConfig::default(), &[], 0, None))).unwrap();
        assert!(text.contains(r#""created":null"#) && text.contains(r#""diff_ids":null"#), "{text}");
        assert_eq!(go_escape(r#"{"a":"x && y < z"}"#), r#"{"a":"x \u0026\u0026 y \u003c z"}"#);
    }
}
