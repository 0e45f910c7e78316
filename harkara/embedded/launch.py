"""Runs as a script in a fresh interpreter: takes on an identity, ties itself to its parent, becomes the server.

    python -I -S launch.py PARENT_PID DEATH_SIGNAL IDENTITY PROGRAM [ARGUMENT…]

A fresh interpreter rather than `preexec_fn`, which runs Python between fork and exec and may deadlock when the parent
has threads. It imports the standard library only. PARENT_PID 0 means: not tied to the parent (a watchdog does it).

IDENTITY is `plain`, `userns` or `nobody`. PostgreSQL refuses to run as root. `userns` gives it a user namespace in
which root is called 65534, so that every file stays reachable and nothing needs a new owner. Where namespaces are
forbidden, `nobody` changes the user but keeps the capability to read and write root's files.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

NOBODY = 65534

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def enter_user_namespace(libc: ctypes.CDLL) -> None:
    """From now on the kernel tells this process that root's id is 65534. Raises OSError where that is forbidden."""
    uid, gid = os.geteuid(), os.getegid()
    _check(libc.unshare(_CLONE_NEWUSER), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {uid} 1"),
        ("gid_map", f"{NOBODY} {gid} 1"),
    ):
        Path("/proc/self", name).write_text(text)


def become_nobody(libc: ctypes.CDLL) -> None:
    """Changes user and group to nobody, but keeps the right to root's files. Raises OSError without that right."""
    _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    mask = 1 << _CAP_DAC_OVERRIDE
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable; low, then high words
    _check(libc.capset(header, sets), "capset")
    _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0), "ambient capability")


def main(parent: int, death_signal: int, identity: str, argv: list[str]) -> None:
    """Becomes `argv`; does not return."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if identity == "userns":
            enter_user_namespace(libc)
        elif identity == "nobody":
            become_nobody(libc)
        if parent:
            # After the change of identity, which would clear it.
            _check(libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0), "parent-death signal")
    if parent and os.getppid() != parent:
        sys.exit("the parent is gone already")
    os.execv(argv[0], argv)  # noqa: S606 - the point of this script


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
