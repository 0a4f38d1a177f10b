//! `--chmod`: octal, or symbolic as chmod(1) takes it.

use super::FileError;
use frontend::op::Chmod;

/// The mode of a copied file that had `mode`. Symbolic modes without `u`, `g`, `o` or `a` mean all, whatever the umask.
pub fn apply(chmod: &Chmod, mode: u32, is_dir: bool) -> Result<u32, FileError> {
    match chmod {
        Chmod::Octal(octal) => Ok(octal & 0o7777),
        Chmod::Symbolic(text) => text
            .split(',')
            .try_fold(mode & 0o7777, |mode, clause| clause_on(clause, mode, is_dir))
            .ok_or_else(|| FileError::BadChmod { mode: text.clone() }),
    }
}

/// One clause, such as `go-w` or `u=rwX+s`. `None` if it is malformed.
fn clause_on(clause: &str, mut mode: u32, is_dir: bool) -> Option<u32> {
    let operators = clause.find(['+', '-', '='])?;
    let (who, mut rest) = clause.split_at(operators);
    let mut classes = 0;
    for letter in who.chars() {
        classes |= match letter {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    if classes == 0 {
        classes = 0o7777;
    }
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        let bits = permissions(&rest[1..end], mode, is_dir)? & classes;
        mode = match operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            // chmod(1) leaves the set-id bits of directories alone unless they are named.
            _ if is_dir => (mode & !(classes & 0o1777)) | bits,
            _ => (mode & !classes) | bits,
        };
        rest = &rest[end..];
    }
    Some(mode)
}

fn permissions(letters: &str, mode: u32, is_dir: bool) -> Option<u32> {
    let spread = |bits: u32| bits << 6 | bits << 3 | bits;
    match letters {
        "u" => return Some(spread(mode >> 6 & 7)),
        "g" => return Some(spread(mode >> 3 & 7)),
        "o" => return Some(spread(mode & 7)),
        _ => {}
    }
    letters.chars().try_fold(0, |bits, letter| {
        Some(
            bits | match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                'X' => 0,
                's' => 0o6000,
                't' => 0o1000,
                _ => return None,
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes() {
        let check = |text: &str, mode: u32, is_dir: bool, expect: Option<u32>| {
            let got = apply(&Chmod::Symbolic(text.to_string()), mode, is_dir).ok();
            assert_eq!(got, expect, "{text} on {mode:o}, got {got:?}");
        };
        check("u=rwX,go=rX", 0o640, false, Some(0o644));
        check("u=rwX,go=rX", 0o750, false, Some(0o755));
        check("u=rwX,go=rX", 0o700, true, Some(0o755));
        check("+x", 0o644, false, Some(0o755));
        check("go-rwx", 0o755, true, Some(0o700));
        check("g=u", 0o640, false, Some(0o660));
        check("g=u", 0o750, true, Some(0o770));
        check("a+t,u+s", 0o644, false, Some(0o5644));
        check("a-w", 0o666, false, Some(0o444));
        check("u=rw+x", 0o000, false, Some(0o700));
        check("g+s", 0o755, true, Some(0o2755));
        check("=r", 0o4755, false, Some(0o444));
        check("o=", 0o777, false, Some(0o770));
        check("u+q", 0o777, false, None);
        check("rwx", 0o777, false, None);
        check("z+x", 0o777, false, None);
    }

    #[test]
    fn octal_modes_replace() {
        assert_eq!(apply(&Chmod::Octal(0o4711), 0o644, false).unwrap(), 0o4711);
    }
}
