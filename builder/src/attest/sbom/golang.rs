//! Modules of Go: `go.mod`, and what the linker has written into programs.

use super::package::Package;
use std::io::{self, Read, Seek, SeekFrom};

/// What a program begins its build information with, and how long the fixed part is.
const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEAD: usize = 32;
/// More than any program's list of modules.
const INFO_MAX_BYTES: u64 = 4 << 20;
const SECTIONS_MAX: u16 = 4096;

fn module(path: &str, version: &str) -> Package {
    Package::scoped("golang", path, version)
}

/// `go.mod`: what is required. What `go.sum` has beside that is not used.
pub fn go_mod(text: &str) -> Vec<Package> {
    let mut found = vec![];
    let mut is_within = false;
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let requirement = match line.strip_prefix("require") {
            Some(rest) if rest.trim() == "(" => {
                is_within = true;
                continue;
            }
            Some(rest) if rest.starts_with([' ', '\t']) => rest.trim(),
            _ if line == ")" => {
                is_within = false;
                continue;
            }
            _ if is_within => line,
            _ => continue,
        };
        if let Some((path, version)) = requirement.split_once([' ', '\t']) {
            found.push(module(path, version.trim()));
        }
    }
    found
}

/// The modules that a program was linked of, and Go's own library; nothing if it is no program of Go 1.18 or later.
pub fn program(mut file: impl Read + Seek) -> io::Result<Vec<Package>> {
    let Some((offset, size)) = build_info(&mut file)? else { return Ok(vec![]) };
    file.seek(SeekFrom::Start(offset))?;
    let mut info = vec![];
    file.take(size.min(INFO_MAX_BYTES)).read_to_end(&mut info)?;
    Ok(modules(&info))
}

/// Where the section `.go.buildinfo` of an ELF program is, and how large (elf(5)).
fn build_info(file: &mut (impl Read + Seek)) -> io::Result<Option<(u64, u64)>> {
    let mut head = [0; 64];
    if file.read_exact(&mut head).is_err() || &head[..4] != b"\x7fELF" {
        return Ok(None);
    }
    let elf = Elf { is_64: head[4] == 2, is_big: head[5] == 2 };
    let (sections, size, count, names) = match elf.is_64 {
        true => {
            (elf.number(&head[40..48]), elf.number(&head[58..60]), elf.number(&head[60..62]), elf.number(&head[62..64]))
        }
        false => {
            (elf.number(&head[32..36]), elf.number(&head[46..48]), elf.number(&head[48..50]), elf.number(&head[50..52]))
        }
    };
    if count > u64::from(SECTIONS_MAX) || size < if elf.is_64 { 64 } else { 40 } || size > 256 || names >= count {
        return Ok(None);
    }
    let mut table = vec![0; (size * count) as usize];
    file.seek(SeekFrom::Start(sections))?;
    if file.read_exact(&mut table).is_err() {
        return Ok(None);
    }
    let section = |index: u64| {
        let entry = &table[(index * size) as usize..][..size as usize];
        match elf.is_64 {
            true => (elf.number(&entry[..4]), elf.number(&entry[24..32]), elf.number(&entry[32..40])),
            false => (elf.number(&entry[..4]), elf.number(&entry[16..20]), elf.number(&entry[20..24])),
        }
    };
    let (_, names_at, names_size) = section(names);
    let mut texts = vec![];
    file.seek(SeekFrom::Start(names_at))?;
    file.take(names_size.min(1 << 20)).read_to_end(&mut texts)?;
    Ok((0..count).map(section).find_map(|(name, offset, size)| {
        let name = texts.get(usize::try_from(name).ok()?..)?;
        name.starts_with(b".go.buildinfo\0").then_some((offset, size))
    }))
}

#[derive(Clone, Copy)]
struct Elf {
    is_64: bool,
    is_big: bool,
}

impl Elf {
    fn number(self, bytes: &[u8]) -> u64 {
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if self.is_big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    }
}

/// Reads the section's content: flags, then two texts with their lengths (debug/buildinfo of Go).
fn modules(info: &[u8]) -> Vec<Package> {
    const INLINE: u8 = 2;
    if !info.starts_with(MAGIC) || info.get(15).is_none_or(|flags| flags & INLINE == 0) {
        return vec![];
    }
    let mut rest = info.get(HEAD..).unwrap_or_default();
    let (Some(go), Some(text)) = (take_text(&mut rest), take_text(&mut rest)) else { return vec![] };
    // Between two marks of 16 bytes.
    let text = text.get(16..text.len().saturating_sub(16)).unwrap_or_default();
    let (go, text) = (String::from_utf8_lossy(go), String::from_utf8_lossy(text));
    let mut found = vec![];
    if let Some(version) = go.split_whitespace().next().and_then(|go| go.strip_prefix("go")) {
        found.push(Package::plain("golang", "", "stdlib", version));
    }
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["mod" | "dep", path, version, ..] => found.push(module(path, version)),
            // What stands for the one before it.
            ["=>", path, version, ..] => {
                found.pop();
                found.push(module(path, version));
            }
            _ => {}
        }
    }
    found
}

/// A text after its length as an unsigned LEB128.
fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (mut length, mut shift) = (0u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    let (text, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn purls(packages: &[Package]) -> Vec<&str> {
        packages.iter().map(|package| package.purl.as_str()).collect()
    }

    #[test]
    fn requirements() {
        let text = "module example.org/app\n\ngo 1.22\n\nrequire golang.org/x/sys v0.20.0\n\nrequire (\n\tgithub.com/a/b v1.0.0 // indirect\n)\n\nreplace x => y v1\n";
        assert_eq!(purls(&go_mod(text)), ["pkg:golang/golang.org/x/sys@v0.20.0", "pkg:golang/github.com/a/b@v1.0.0"]);
    }

    /// An ELF program with one section of that content.
    fn elf(info: &[u8]) -> Vec<u8> {
        let names = b"\0.go.buildinfo\0.shstrtab\0";
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let info_at = elf.len();
        elf.extend(info);
        let names_at = elf.len();
        elf.extend(names);
        let table = elf.len() as u64;
        for (name, at, size) in [(0u32, 0, 0), (1, info_at, info.len()), (15, names_at, names.len())] {
            let mut entry = [0; 64];
            entry[..4].copy_from_slice(&name.to_le_bytes());
            entry[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            entry[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend(entry);
        }
        elf[40..48].copy_from_slice(&table.to_le_bytes());
        (elf[58], elf[60], elf[62]) = (64, 3, 2);
        elf
    }

    #[test]
    fn programs() {
        let modules = "path\texample.org/app\nmod\texample.org/app\t(devel)\t\ndep\tgithub.com/a/b\tv1.0.0\th1:x\ndep\tc\tv1.0.0\n=>\tgithub.com/d/c\tv1.0.1\th1:y\n";
        let text = format!("{}{modules}{}", "s".repeat(16), "e".repeat(16));
        let mut info = MAGIC.to_vec();
        info.extend([8, 2]);
        info.resize(HEAD, 0);
        info.push(8);
        info.extend(b"go1.22.1");
        info.extend([text.len() as u8 | 0x80, (text.len() >> 7) as u8]);
        info.extend(text.as_bytes());
        let whole = elf(&info);
        let found = program(Cursor::new(&whole)).unwrap();
        let expect = [
            "pkg:golang/stdlib@1.22.1",
            "pkg:golang/example.org/app@%28devel%29",
            "pkg:golang/github.com/a/b@v1.0.0",
            "pkg:golang/github.com/d/c@v1.0.1",
        ];
        assert_eq!(purls(&found), expect);
        for length in 0..whole.len() {
            let _ = program(Cursor::new(&whole[..length]));
        }
        assert_eq!(program(Cursor::new(b"#!/bin/sh\n")).unwrap(), []);
    }
}
