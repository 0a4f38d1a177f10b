//! How long `.dockerignore` takes for 100,000 paths: `cargo bench -p builder --bench ignore`. Prints nanoseconds a path.

use frontend::ignore::Ignore;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

/// Folders four deep, 25 files each.
const FOLDERS: usize = 4_000;

const LINES: &[&str] = &[
    "**/node_modules",
    "**/.git",
    "**/*.log",
    "**/*.tmp",
    "**/*.pyc",
    "**/__pycache__",
    "**/dist",
    "**/build",
    "**/.env.*",
    "**/docker-compose*.yml",
    "**/Dockerfile*",
    "**/*.test.js",
    "**/test[0-2]/**/*.json",
    "**/data?/*.txt",
    "docs/**/*.html",
    "*.tar.gz",
    "README*",
    "scripts/*.sh",
    "tools/**",
    "a/b/c/d",
    "proj/*/view3",
    "**/vendor/**/testdata",
    "**/*~",
    "**/.*.sw?",
];

fn main() {
    let folders: Vec<String> =
        (0..FOLDERS).map(|i| format!("proj/src{}/lib{}/core{}", i % 7, i / 7 % 17, i / 119)).collect();
    let names: Vec<String> =
        (0..25).map(|i| format!("file{i}.{}", ["ts", "json", "md", "log", "txt"][i % 5])).collect();
    let plain = LINES.join("\n");
    let many: String = (0..100).map(|i| format!("**/generated{i}\n")).collect();
    let cases = BTreeMap::from([
        ("24 patterns", plain.clone()),
        ("24 patterns and 3 exceptions", format!("{plain}\n!**/README.md\n!proj/src2/**/*.log\n!**/lib1/keep*.json")),
        ("124 patterns", format!("{plain}\n{many}")),
    ]);
    for (name, text) in cases {
        let ignore = Ignore::parse(&text).expect("the patterns are well formed");
        let started = Instant::now();
        let mut excluded = 0;
        for folder in &folders {
            let mut within = ignore.within(folder);
            excluded += names.iter().filter(|name| within.excludes(black_box(name.as_bytes()))).count();
        }
        let paths = folders.len() * names.len();
        let nanoseconds = started.elapsed().as_nanos() / paths as u128;
        println!("{name}: {nanoseconds} ns a path, {excluded} of {paths} excluded");
    }
}
