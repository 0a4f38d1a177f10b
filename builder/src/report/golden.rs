//! Dockerfiles that are wrong, and what kiln says: `tests/corpus/errors/NAME.Dockerfile` and `NAME.txt`. Options of the
//! build are in `NAME.options`, one a line: `target=…`, `build-arg=NAME=VALUE`. `cargo xtask bless` writes the texts.

use super::*;
use frontend::stand_in;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/errors")
}

fn names() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".Dockerfile").map(str::to_string)).collect()
}

fn said(name: &str) -> String {
    let text = std::fs::read(folder().join(format!("{name}.Dockerfile"))).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut request = stand_in::request();
    for option in std::fs::read_to_string(folder().join(format!("{name}.options"))).unwrap_or_default().lines() {
        match option.split_once('=').unwrap() {
            ("target", value) => request.target = Some(value.to_string()),
            ("build-arg", value) => {
                let (name, value) = value.split_once('=').unwrap();
                request.build_args.insert(name.to_string(), value.to_string());
            }
            _ => panic!("{name}: {option}"),
        }
    }
    let source = SourceText { name: "Dockerfile".into(), text };
    match stand_in::build(source.clone(), &request) {
        Ok(_) => panic!("{name} has no error"),
        Err(errors) => diagnostics(&source, &errors, Phase::Compile, Look { colour: false, width: 100 }),
    }
}

#[test]
fn what_is_said_about_wrong_dockerfiles() {
    let bless = std::env::var_os("KILN_BLESS").is_some();
    let names = names();
    assert!(names.len() >= 60, "{names:?}");
    let mut differ = vec![];
    for name in &names {
        let (path, said) = (folder().join(format!("{name}.txt")), said(name));
        let expect = std::fs::read_to_string(&path).unwrap_or_default();
        if said != expect {
            if bless {
                std::fs::write(&path, said).unwrap();
            } else {
                differ.push(format!("{name}: expected\n{expect}\nbut it says\n{said}"));
            }
        }
    }
    assert!(differ.is_empty(), "{}\n`cargo xtask bless` accepts", differ.join("\n"));
}

#[test]
fn spans_are_within_the_text() {
    for name in names() {
        let text =
            String::from_utf8_lossy(&std::fs::read(folder().join(format!("{name}.Dockerfile"))).unwrap()).into_owned();
        let source = SourceText { name: "Dockerfile".into(), text: text.clone() };
        for error in stand_in::build(source, &stand_in::request()).err().unwrap_or_default() {
            for span in error.span.into_iter().chain(error.labels.iter().map(|(span, _)| *span)) {
                assert!(text.get(span.start as usize..span.end as usize).is_some(), "{name}: {span:?}");
            }
        }
    }
}
