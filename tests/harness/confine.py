#!/usr/bin/env python3
"""Runs a command as in an unprivileged container: as root with the capabilities that Docker leaves, and with a filter of
system calls that refuses namespaces and mounts as Docker's does.

    confine.py COMMAND...
"""
import ctypes, os, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
DEFAULT_CAPABILITIES = 0xA80425FB
PR_CAPBSET_DROP, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 24, 22, 2
EPERM, ENOSYS = 1, 38
NAMESPACES = 0x7E020000
# mount, umount2, pivot_root, unshare, setns, and mount_setattr and the calls around it: the same calls everywhere.
NEW = {"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
       "mount_setattr": 442}
NUMBERS = {
    "x86_64": {"clone": 56, "refused": [165, 166, 155, 272, 308], "audit": 0xC000003E},
    "aarch64": {"clone": 220, "refused": [40, 39, 41, 97, 268], "audit": 0xC00000B7},
}
CLONE3 = 435


def check(result, what):
    if result != 0:
        sys.exit(f"confine.py: {what}: {os.strerror(ctypes.get_errno())}")


def program(numbers):
    """BPF: (code, jump if true, jump if false, constant); bpf(4), seccomp(2)."""
    load, equal, any_bit, ret = 0x20, 0x15, 0x45, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000
    code = [(load, 0, 0, 0)]
    for number in numbers["refused"] + sorted(NEW.values()):
        code += [(equal, 0, 1, number), (ret, 0, 0, refuse | EPERM)]
    code += [(equal, 0, 1, CLONE3), (ret, 0, 0, refuse | ENOSYS)]
    # The flags of clone are its first argument; their low word is at 16.
    code += [(equal, 0, 3, numbers["clone"]), (load, 0, 0, 16), (any_bit, 0, 1, NAMESPACES), (ret, 0, 0, refuse | EPERM)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code + [(ret, 0, 0, allow)])


def main():
    numbers = NUMBERS.get(os.uname().machine)
    if numbers is None:
        sys.exit(f"confine.py: no numbers of system calls for {os.uname().machine}")
    code = program(numbers)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    filter = Filter(len(code) // 8, ctypes.addressof(buffer))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter), 0, 0), "load the filter")
    for capability in range(64):
        if not DEFAULT_CAPABILITIES >> capability & 1 and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            # The kernel has no more of them.
            break
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)(DEFAULT_CAPABILITIES, DEFAULT_CAPABILITIES, 0, 0, 0, 0)
    check(libc.capset(header, data), "set the capabilities")
    os.execvp(sys.argv[1], sys.argv[1:])


main()
