//! Programs for other machines, made here: static, without a C library, from a few instructions. And a namespace that
//! stands for a machine whose root has registered an emulator.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

/// Waits for its ids, then registers the emulator `$0`.
const REGISTER: &str = r#"echo ready; read _
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
m='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
k='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":arm64:M::$m:$k:$0:POCF" > /proc/sys/fs/binfmt_misc/register
"#;

/// The words that start a program as root of such a namespace, its own mounts among it, after the shell has run
/// `then`; for [`register_arm64`].
pub fn with_arm64(emulator: &str, then: &str) -> Vec<String> {
    let script = format!("{REGISTER}{then}\nexec \"$@\"");
    let words = ["unshare", "--user", "--mount", "--pid", "--fork", "sh", "-ec", &script, emulator];
    words.map(String::from).to_vec()
}

/// Starts a command whose first words are [`with_arm64`]'s, with every id of the machine in it. What it writes to
/// standard output can be read from the child.
pub fn register_arm64(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start unshare");
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).expect("wait for unshare");
    assert_eq!(&ready, b"ready\n");
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", child.id()), "0 0 4294967295").expect("write the id map");
    }
    child.stdin.take().unwrap().write_all(b"go\n").expect("let it go on");
    child
}

/// For linux/arm64: writes `arm64 ran` and ends with 0; with an argument, reads address 0.
pub fn arm64() -> Vec<u8> {
    let code: [u32; 13] = [
        0xf940_03e3, // ldr x3, [sp]      argc
        0xf100_047f, // cmp x3, #1
        0x5400_0121, // b.ne crash
        0xd280_0020, // mov x0, #1
        0x1000_0121, // adr x1, text
        0xd280_0142, // mov x2, #10
        0xd280_0808, // mov x8, #64       write
        0xd400_0001, // svc #0
        0xd280_0000, // mov x0, #0
        0xd280_0ba8, // mov x8, #93       exit
        0xd400_0001, // svc #0
        0xd280_0000, // crash: mov x0, #0
        0xf940_0000, // ldr x0, [x0]
    ];
    let mut code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(b"arm64 ran\n");
    let mut elf = elf_head(2, 183);
    let (size, start) = (120 + code.len() as u64, 0x40_0000u64);
    // ELF header (elf(5)): entry, program headers, section headers, flags, sizes and counts.
    [start + 120, 64, 0].iter().for_each(|field| elf.extend(field.to_le_bytes()));
    elf.extend([0; 4]);
    [64u16, 56, 1, 64, 0, 0].iter().for_each(|field| elf.extend(field.to_le_bytes()));
    // One segment: PT_LOAD, read and execute.
    [1u32, 5].iter().for_each(|field| elf.extend(field.to_le_bytes()));
    [0, start, start, size, size, 0x1_0000].iter().for_each(|field| elf.extend(field.to_le_bytes()));
    elf.extend(code);
    elf
}

/// For linux/386: writes `386 ran` and ends with 0.
pub fn i386() -> Vec<u8> {
    let mut code = vec![0xb8, 4, 0, 0, 0]; // mov eax, 4     write
    code.extend([0xbb, 1, 0, 0, 0]); //       mov ebx, 1
    code.extend([0xe8, 8, 0, 0, 0]); //       call over the text
    code.extend(b"386 ran\n");
    code.extend([0x59]); //                   pop ecx        the text
    code.extend([0xba, 8, 0, 0, 0]); //       mov edx, 8
    code.extend([0xcd, 0x80]); //             int 0x80
    code.extend([0xb8, 1, 0, 0, 0]); //       mov eax, 1     exit
    code.extend([0x31, 0xdb, 0xcd, 0x80]); // xor ebx, ebx; int 0x80
    let mut elf = elf_head(1, 3);
    let (size, start) = (84 + code.len() as u32, 0x40_0000u32);
    [start + 84, 52, 0, 0].iter().for_each(|field| elf.extend(field.to_le_bytes()));
    [52u16, 32, 1, 40, 0, 0].iter().for_each(|field| elf.extend(field.to_le_bytes()));
    [1, 0, start, start, size, size, 5, 0x1000].iter().for_each(|field| elf.extend(field.to_le_bytes()));
    elf.extend(code);
    elf
}

/// The first bytes of an executable, least significant byte first, up to `e_version`. `class` is 1 for 32 bits.
fn elf_head(class: u8, machine: u16) -> Vec<u8> {
    let mut head = b"\x7fELF".to_vec();
    head.extend([class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    [2, machine].iter().for_each(|field| head.extend(field.to_le_bytes()));
    head.extend(1u32.to_le_bytes());
    head
}
