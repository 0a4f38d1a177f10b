//! `--chmod`: octal, or symbolic as chmod(1) takes it.

use super::FileError;
use frontend::op::Chmod;

/// Set-user-id, set-group-id and the permission bits: all that `a` names and `=` clears. Sticky is no one's.
const STANDARD: u32 = 0o6777;

const STICKY: u32 = 0o1000;

const EXECUTE: u32 = 0o111;

/// The mode of a copied file that had `mode`. Symbolic modes are worked off clause by clause, as setmode(3) of the BSDs
/// does: without `u`, `g`, `o` or `a` they mean all, whatever the umask.
pub fn apply(chmod: &Chmod, mode: u32, is_dir: bool) -> Result<u32, FileError> {
    match chmod {
        Chmod::Octal(octal) => Ok(octal & 0o7777),
        Chmod::Symbolic(text) => {
            let executable = is_dir || mode & EXECUTE != 0;
            text.split(',')
                .try_fold(mode & 0o7777, |mode, clause| clause_on(clause, mode, executable))
                .ok_or_else(|| FileError::BadChmod { mode: text.clone() })
        }
    }
}

/// One clause, such as `go-w` or `u=rwX+s`. `None` if it is malformed. `executable`: `X` counts.
fn clause_on(clause: &str, mut mode: u32, executable: bool) -> Option<u32> {
    let operators = clause.find(OPERATORS)?;
    let (letters, mut rest) = clause.split_at(operators);
    let mut who = 0;
    for letter in letters.chars() {
        who |= match letter {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            'a' => STANDARD,
            _ => return None,
        };
    }
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(OPERATORS).map_or(rest.len(), |at| at + 1);
        who &= !STICKY;
        mode = operation(operator, &rest[1..end], &mut who, mode, executable)?;
        rest = &rest[end..];
    }
    Some(mode)
}

const OPERATORS: [char; 3] = ['+', '-', '='];

/// An operator and what follows it. `who` are the bits that may change; none stands for all.
fn operation(operator: char, letters: &str, who: &mut u32, mut mode: u32, executable: bool) -> Option<u32> {
    let (mut bits, mut execute_if) = (0, 0);
    let mut copied = false;
    for letter in letters.chars() {
        // Set-id and sticky bits are not those of others.
        let has_special = *who == 0 || *who & !0o007 != 0;
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= EXECUTE,
            'X' if operator == '-' => bits |= EXECUTE,
            'X' => execute_if = EXECUTE,
            's' if has_special => bits |= 0o6000,
            // From here on the clause names the sticky bit too, and nothing else if it named no one.
            't' if has_special => {
                *who |= STICKY;
                bits |= STICKY;
            }
            's' | 't' => {}
            'u' | 'g' | 'o' => {
                if bits != 0 {
                    mode = change(operator, *who, bits, mode);
                    bits = 0;
                }
                if execute_if != 0 && executable {
                    mode = change('+', *who, execute_if, mode);
                }
                execute_if = 0;
                mode = copy_class(operator, letter, *who, mode);
                copied = operator == '=';
            }
            _ => return None,
        }
    }
    if bits != 0 || (operator == '=' && !copied) {
        mode = change(operator, *who, bits, mode);
    }
    if execute_if != 0 && executable {
        mode = change('+', *who, execute_if, mode);
    }
    Some(mode)
}

fn change(operator: char, who: u32, bits: u32, mode: u32) -> u32 {
    let changed = if who == 0 { bits } else { bits & who };
    match operator {
        '+' => mode | changed,
        '-' => mode & !changed,
        _ => (mode & !if who == 0 { STANDARD } else { who }) | changed,
    }
}

/// `g=u`: the permissions of one class for others; set-id bits stay.
fn copy_class(operator: char, from: char, who: u32, mode: u32) -> u32 {
    let shift = |class: char| match class {
        'u' => 6,
        'g' => 3,
        _ => 0,
    };
    let bits = mode >> shift(from) & 7;
    let classes = ['u', 'g', 'o'].into_iter().filter(|class| who == 0 || who & (4 << shift(*class)) != 0);
    classes.fold(mode, |mode, class| {
        let (bits, all) = (bits << shift(class), 7 << shift(class));
        match operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !all) | bits,
        }
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
        check("u=go", 0o4654, false, Some(0o4454));
        check("u=rg", 0o654, false, Some(0o554));
        check("u=gr", 0o654, false, Some(0o454));
        check("g-u", 0o574, false, Some(0o524));
        check("o=", 0o777, false, Some(0o770));
        check("u+q", 0o777, false, None);
        check("rwx", 0o777, false, None);
        check("z+x", 0o777, false, None);
    }

    #[test]
    fn special_bits_of_symbolic_modes() {
        let check = |text: &str, mode: u32, expect: u32| {
            for is_dir in [false, true] {
                let got = apply(&Chmod::Symbolic(text.to_string()), mode, is_dir).unwrap();
                assert_eq!(got, expect, "{text} on {mode:o}, got {got:o}");
            }
        };
        // `=` clears the set-id bits of those it names, of folders too, and never the sticky bit.
        check("a=rX", 0o7755, 0o1555);
        check("=", 0o7777, 0o1000);
        check("u=", 0o6750, 0o2050);
        check("go=", 0o7777, 0o5700);
        check("g=u", 0o7757, 0o7777);
        check("=s", 0o1755, 0o7000);
        check("u=s", 0o755, 0o4055);
        check("+s", 0o755, 0o6755);
        check("o+s", 0o755, 0o755);
        // The sticky bit is not one of others; alone it leaves all else as it is.
        check("o+t", 0o755, 0o755);
        check("u+t", 0o755, 0o1755);
        check("=t", 0o755, 0o1755);
        check("a=t", 0o755, 0o1000);
        check("-t", 0o7755, 0o6755);
        check("=rt", 0o755, 0o1755);
        check("u=rws,g=rxs,o=t", 0o1777, 0o7650);
    }

    #[test]
    fn octal_modes_replace() {
        assert_eq!(apply(&Chmod::Octal(0o4711), 0o644, false).unwrap(), 0o4711);
    }
}
