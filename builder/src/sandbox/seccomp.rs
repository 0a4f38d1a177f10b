//! The filter of system calls, as a BPF program: Docker's default rules, for this machine's architecture and those whose
//! programs it also runs. Pure.

use super::seccomp_table::CALLS;

/// One BPF instruction (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`: the call's number, its architecture, the low word of its first argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT_0: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const DENY: u32 = ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = ERRNO | libc::ENOSYS as u32;

/// Marks calls of the x32 ABI, which share x86_64's architecture.
const X32_BIT: u32 = 0x4000_0000;
/// What follows this number is newer than the table: programs are told that it does not exist, so that they fall back.
const NEWEST: u32 = 466;
/// All `CLONE_NEW*` that clone(2) takes.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// `PER_LINUX`, `PER_LINUX32` with and without `UNAME26`, and the question which it is.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];
const AF_VSOCK: u32 = 40;

/// Columns of the table.
const X86_64: usize = 0;
const X32: usize = 1;
const I386: usize = 2;
const AARCH64: usize = 3;

/// The filter for programs of this machine; `None` where the table has no column for it.
pub(crate) fn filter() -> Option<Vec<Instruction>> {
    match std::env::consts::ARCH {
        "x86_64" => Some(program(&[(0xc000_003e, X86_64, Some(X32)), (0x4000_0003, I386, None)])),
        "aarch64" => Some(program(&[(0xc000_00b7, AARCH64, None)])),
        _ => None,
    }
}

/// `AUDIT_ARCH_*`, its column, and the column of the ABI that is marked by [`X32_BIT`].
type Abi = (u32, usize, Option<usize>);

fn program(abis: &[Abi]) -> Vec<Instruction> {
    let mut program = vec![load(ARCHITECTURE)];
    for (architecture, column, marked) in abis {
        let mut block = vec![load(NUMBER)];
        if let Some(marked) = marked {
            let calls = calls(*marked, X32_BIT);
            block.push(Instruction { code: JUMP_GREATER_EQUAL, jump_true: 1, jump_false: 0, value: X32_BIT });
            block.push(jump(calls.len()));
            block.extend(calls);
        }
        block.extend(calls(*column, 0));
        program.push(Instruction { code: JUMP_EQUAL, jump_true: 1, jump_false: 0, value: *architecture });
        program.push(jump(block.len()));
        program.extend(block);
    }
    program.push(ret(DENY));
    program
}

/// Decides about a loaded number; always returns.
fn calls(column: usize, mark: u32) -> Vec<Instruction> {
    let number = |row: &(&str, [i16; 4])| u32::try_from(row.1[column]).ok().map(|number| number | mark);
    let mut program = vec![];
    let mut plain = vec![];
    for row in CALLS {
        let Some(number) = number(row) else { continue };
        match condition(row.0) {
            None => plain.push(number),
            Some(rule) => {
                program.push(Instruction {
                    code: JUMP_EQUAL,
                    jump_true: 0,
                    jump_false: rule.len() as u8,
                    value: number,
                });
                program.extend(rule);
            }
        }
    }
    plain.sort_unstable();
    for (low, high) in ranges(&plain) {
        program.push(Instruction { code: JUMP_GREATER, jump_true: 3, jump_false: 0, value: high });
        program.push(Instruction { code: JUMP_GREATER_EQUAL, jump_true: 1, jump_false: 0, value: low });
        program.push(ret(DENY));
        program.push(ret(ALLOW));
    }
    program.push(Instruction { code: JUMP_GREATER, jump_true: 1, jump_false: 0, value: NEWEST | mark });
    program.push(ret(DENY));
    program.push(ret(UNKNOWN));
    program
}

/// The rule of a call that is not simply allowed; always returns.
fn condition(name: &str) -> Option<Vec<Instruction>> {
    match name {
        // Its flags are behind a pointer, which no filter can follow; programs fall back to clone(2).
        "clone3" => Some(vec![ret(UNKNOWN)]),
        "clone" => Some(vec![
            load(ARGUMENT_0),
            Instruction { code: JUMP_ANY_BIT, jump_true: 0, jump_false: 1, value: CLONE_NAMESPACES },
            ret(DENY),
            ret(ALLOW),
        ]),
        "socket" => Some(vec![
            load(ARGUMENT_0),
            Instruction { code: JUMP_EQUAL, jump_true: 0, jump_false: 1, value: AF_VSOCK },
            ret(DENY),
            ret(ALLOW),
        ]),
        "personality" => {
            let mut rule = vec![load(ARGUMENT_0)];
            for (i, value) in PERSONALITIES.into_iter().enumerate() {
                let to_allow = (PERSONALITIES.len() - i) as u8;
                rule.push(Instruction { code: JUMP_EQUAL, jump_true: to_allow, jump_false: 0, value });
            }
            rule.extend([ret(DENY), ret(ALLOW)]);
            Some(rule)
        }
        _ => None,
    }
}

/// Runs of neighbours in sorted numbers.
fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = vec![];
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, high)) if *high + 1 >= number => *high = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, value: offset }
}

fn jump(over: usize) -> Instruction {
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, value: over as u32 }
}

fn ret(value: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says about a call.
    fn run(program: &[Instruction], architecture: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, jump_true, jump_false, value } = program[at];
            at += 1;
            let mut branch = |holds: bool| at += if holds { jump_true } else { jump_false } as usize;
            match code {
                LOAD => accumulator = [number, architecture, 0, 0, argument][value as usize / 4],
                JUMP => at += value as usize,
                JUMP_EQUAL => branch(accumulator == value),
                JUMP_GREATER => branch(accumulator > value),
                JUMP_GREATER_EQUAL => branch(accumulator >= value),
                JUMP_ANY_BIT => branch(accumulator & value != 0),
                RETURN => return value,
                _ => panic!("code {code}"),
            }
        }
    }

    #[test]
    fn rules() {
        let program = program(&[(1, X86_64, Some(X32)), (2, I386, None), (3, AARCH64, None)]);
        let check = |architecture, number, argument, expect| {
            assert_eq!(run(&program, architecture, number, argument), expect, "{architecture} {number} {argument:#x}");
        };
        check(1, 0, 0, ALLOW); // read
        check(1, 165, 0, DENY); // mount
        check(1, 304, 0, DENY); // open_by_handle_at
        check(1, 435, 0, UNKNOWN); // clone3
        check(1, 56, 0x11, ALLOW); // clone as fork
        check(1, 56, 0x1000_0000, DENY); // clone with a user namespace
        check(1, 41, 2, ALLOW); // socket
        check(1, 41, AF_VSOCK, DENY);
        check(1, 135, 8, ALLOW); // personality
        check(1, 135, 0x4_0000, DENY);
        check(1, 9999, 0, UNKNOWN);
        check(1, X32_BIT | 1, 0, ALLOW); // x32 write
        check(1, X32_BIT | 520, 0, ALLOW); // x32 execve
        check(1, X32_BIT | 165, 0, DENY);
        check(2, 3, 0, ALLOW); // i386 read
        check(2, 21, 0, DENY); // i386 mount
        check(2, 102, 0, ALLOW); // i386 socketcall
        check(3, 63, 0, ALLOW); // aarch64 read
        check(3, 40, 0, DENY); // aarch64 mount
        check(4, 0, 0, DENY);
        for row in CALLS.iter().filter(|row| condition(row.0).is_none()) {
            for (architecture, column, mark) in [(1, X86_64, 0), (1, X32, X32_BIT), (2, I386, 0), (3, AARCH64, 0)] {
                if let Ok(number) = u32::try_from(row.1[column]) {
                    check(architecture, number | mark, 0, ALLOW);
                }
            }
        }
        assert!(program.len() < 4096);
    }
}
