//! BuildKit's `SolveStatus` messages as buildx's `--progress=rawjson` prints them: one object per update and line.

use super::render::Renderer;
use super::track::{Track, Tracked};
use super::{Event, Outcome, Stream, Warning};
use crate::call::json::{self, Range, SourceInfo};
use crate::time::rfc3339;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::SystemTime;

/// See the module's head.
pub struct RawJson<W> {
    output: W,
    inputs: HashMap<String, Vec<String>>,
}

/// Field names and what is left out when empty: `client/graph.go` of BuildKit.
#[derive(Serialize, Default)]
struct SolveStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<Vertex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<VertexStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<VertexLog>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<VertexWarning>,
}

#[derive(Serialize)]
struct Vertex {
    digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    /// Why it ran; BuildKit has no such field, and its clients pass over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct VertexStatus {
    id: String,
    vertex: String,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct VertexLog {
    vertex: String,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
struct VertexWarning {
    vertex: String,
    level: u8,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<Range>,
}

impl VertexWarning {
    fn of(vertex: String, warning: &Warning) -> VertexWarning {
        VertexWarning {
            vertex,
            level: 1,
            short: BASE64_STANDARD.encode(&warning.short),
            detail: warning.detail.iter().map(|text| BASE64_STANDARD.encode(text)).collect(),
            url: warning.url.clone(),
            source_info: warning.place.as_ref().map(|(source, _)| json::source_info(source)),
            range: warning.place.iter().map(|(source, span)| json::range(source, *span)).collect(),
        }
    }
}

/// A warning of a vertex, in the same form.
pub fn vertex_warning(vertex: &str, warning: &Warning) -> serde_json::Value {
    let warning = VertexWarning::of(vertex.to_string(), warning);
    serde_json::to_value(&warning).expect("a warning is plain data")
}

/// What BuildKit's messages end in when a vertex was stopped; its clients look for it.
const CANCELED: &str = "context canceled";

impl<W: Write> RawJson<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> RawJson<W> {
        RawJson { output, inputs: HashMap::new() }
    }

    fn vertex(&self, tracked: &Tracked, started: Option<SystemTime>, ended: Option<(SystemTime, &Outcome)>) -> Vertex {
        Vertex {
            digest: tracked.vertex.digest.clone(),
            inputs: self.inputs.get(&tracked.vertex.digest).cloned().unwrap_or_default(),
            name: tracked.vertex.name.clone(),
            started: started.map(rfc3339),
            completed: ended.map(|(at, _)| rfc3339(at)),
            cached: ended.is_some_and(|(_, outcome)| *outcome == Outcome::Cached),
            error: match ended {
                Some((_, Outcome::Failed(message))) => message.clone(),
                Some((_, Outcome::Canceled)) => CANCELED.to_string(),
                Some((_, Outcome::Done | Outcome::Cached)) | None => String::new(),
            },
            reason: tracked.reason(),
        }
    }

    fn add(&mut self, message: &mut SolveStatus, tracked: &Tracked, event: &Event) {
        let vertex = tracked.vertex.digest.clone();
        match event {
            Event::Announced { inputs, .. } => {
                self.inputs.entry(vertex).or_insert_with(|| inputs.clone());
                message.vertexes.push(self.vertex(tracked, None, None));
            }
            Event::Started { at, .. } => message.vertexes.push(self.vertex(tracked, Some(*at), None)),
            Event::Ended { at, outcome, .. } => {
                // The interval that ends now is the one whose end is `at`; the vertex may have started again since.
                let interval = tracked.intervals.iter().rev().find(|(_, end)| *end == Some(*at));
                let started = interval.map_or(*at, |(start, _)| *start);
                message.vertexes.push(self.vertex(tracked, Some(started), Some((*at, outcome))));
            }
            // Said with the vertex's end.
            Event::Explained { .. } => {}
            Event::Status { id, current, total, at, done, .. } => {
                let known = tracked.statuses.iter().find(|status| status.id == *id);
                message.statuses.push(VertexStatus {
                    id: id.clone(),
                    vertex,
                    total: *total,
                    current: *current,
                    timestamp: rfc3339(*at),
                    started: rfc3339(known.map_or(*at, |status| status.started)),
                    completed: done.then(|| rfc3339(*at)),
                });
            }
            Event::Log { stream, data, at, .. } => message.logs.push(VertexLog {
                vertex,
                stream: match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                },
                data: BASE64_STANDARD.encode(data),
                timestamp: rfc3339(*at),
            }),
            Event::Warning { warning, .. } => message.warnings.push(VertexWarning::of(vertex, warning)),
        }
    }
}

impl<W: Write> Renderer for RawJson<W> {
    fn update(&mut self, track: &Track, events: &[Event], _: SystemTime, _: bool) -> io::Result<()> {
        if events.iter().all(|event| matches!(event, Event::Explained { .. })) {
            return Ok(());
        }
        let mut message = SolveStatus::default();
        for event in events {
            if let Some(tracked) = track.get(event.vertex()) {
                self.add(&mut message, tracked, event);
            }
        }
        serde_json::to_writer(&mut self.output, &message)?;
        self.output.write_all(b"\n")?;
        self.output.flush()
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::super::render::testing::*;
    use super::*;

    fn check(events: Vec<Event>, expect: &str) {
        let output = Output::default();
        feed(&mut RawJson::new(output.clone()), vec![(0, events)]);
        assert_eq!(output.text(), format!("{expect}\n"));
    }

    #[test]
    fn vertices() {
        check(
            vec![announced("a"), started("a", 0), ended("a", 120, Outcome::Done)],
            concat!(
                r#"{"vertexes":[{"digest":"sha256:a","name":"a"},"#,
                r#"{"digest":"sha256:a","name":"a","started":"2023-11-14T22:13:20Z"},"#,
                r#"{"digest":"sha256:a","name":"a","started":"2023-11-14T22:13:20Z","completed":"2023-11-14T22:13:20.12Z"}]}"#,
            ),
        );
    }

    #[test]
    fn cached_failed_and_canceled() {
        let time = r#""started":"2023-11-14T22:13:20Z","completed":"2023-11-14T22:13:20Z""#;
        for (outcome, expect) in [
            (Outcome::Cached, r#""cached":true"#),
            (Outcome::Failed("x".into()), r#""error":"x""#),
            (Outcome::Canceled, r#""error":"context canceled""#),
        ] {
            let expect = format!(r#"{{"vertexes":[{{"digest":"sha256:a","name":"a",{time},{expect}}}]}}"#);
            check(vec![ended("a", 0, outcome)], &expect);
        }
    }

    #[test]
    fn statuses_logs_warnings() {
        check(
            vec![log("a", 1, "hi\n"), status("a", 2, "s", 3, 0, true), warning("a", 4, "hi")],
            concat!(
                r#"{"statuses":[{"id":"s","vertex":"sha256:a","current":3,"timestamp":"2023-11-14T22:13:20.002Z","#,
                r#""started":"2023-11-14T22:13:20.002Z","completed":"2023-11-14T22:13:20.002Z"}],"#,
                r#""logs":[{"vertex":"sha256:a","stream":1,"data":"aGkK","timestamp":"2023-11-14T22:13:20.001Z"}],"#,
                r#""warnings":[{"vertex":"sha256:a","level":1,"short":"aGk="}]}"#,
            ),
        );
    }
}
