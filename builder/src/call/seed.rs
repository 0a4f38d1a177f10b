//! Dockerfiles as people write them, and what `--check` says: `tests/corpus/seed/NAME.Dockerfile` and `NAME.txt`.
//! `cargo xtask bless` writes the texts.

use super::text;
use frontend::compile::{CheckOptions, CompileRequest};
use frontend::lint::config::OwnChecks;
use frontend::span::SourceText;
use frontend::stand_in;
use std::path::Path;

#[test]
fn checks_of_dockerfiles_that_people_write() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/seed");
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = entries.filter_map(|name| name.strip_suffix(".Dockerfile").map(str::to_string)).collect();
    assert!(names.len() >= 13, "{names:?}");
    let checks = CheckOptions { own: OwnChecks::Advice, ..CheckOptions::default() };
    let mut differ = vec![];
    for name in &names {
        let written = std::fs::read_to_string(folder.join(format!("{name}.Dockerfile"))).unwrap();
        let source = SourceText { name: "Dockerfile".into(), text: written };
        let mut request = CompileRequest { checks: checks.clone(), ..stand_in::request() };
        if name == "conditional-stage" {
            // The argument picks a stage; without it there is none.
            request.build_args.insert("solver_method_arg".into(), "ipm".into());
        }
        let checked = stand_in::check(source.clone(), &request, stand_in::image);
        let said = text::check(&source, &checked) + &text::errors(&source, &checked.errors);
        let path = folder.join(format!("{name}.txt"));
        let expect = std::fs::read_to_string(&path).unwrap_or_default();
        if said != expect {
            match std::env::var_os("KILN_BLESS") {
                Some(_) => std::fs::write(&path, said).unwrap(),
                None => differ.push(format!("{name}: expected\n{expect}\nbut it says\n{said}")),
            }
        }
    }
    assert!(differ.is_empty(), "{}\n`cargo xtask bless` accepts", differ.join("\n"));
}
