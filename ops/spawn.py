"""Start a child process that never outlives us, under another account when asked."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ops.errors import OpsError

LINUX = sys.platform == "linux"
# Looked up before any fork: a child between fork and exec must not import or allocate libraries.
_libc = ctypes.CDLL(None, use_errno=True) if LINUX else None
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT = 1, 8, 28, 47  # linux/prctl.h
_SECBIT_NO_SETUID_FIXUP = 1 << 2  # linux/securebits.h
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1  # linux/capability.h
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}.get(os.uname().machine)
_CAP_HEADER = struct.pack("=Ii", 0x20080522, 0)  # version 3, this process
_CAP_DATA = struct.pack("=6I", *([1 << _CAP_DAC_OVERRIDE] * 3), 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account of a server that refuses to run as root.

    Attributes:
        name: as in the passwd file.
        uid: numeric user id.
        gid: numeric group id.
        pass_closed_doors: let it walk through directories closed to it, such as /root; it then
            carries CAP_DAC_OVERRIDE and nothing else of root's.
    """

    name: str
    uid: int
    gid: int
    pass_closed_doors: bool = False


def unprivileged() -> Account | None:
    """The account for servers that refuse root; None when we are not root.

    Raises:
        OpsError: we are root and the machine has no such account.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise OpsError(
        "PostgreSQL refuses to run as root and the accounts postgres, nobody and daemon are missing; "
        "run as another user or set TIDEGATE_DATABASE_URL"
    )


def may_enter(path: Path, account: Account) -> bool:
    """Whether the account may walk down to `path`, every parent included."""
    for folder in (path, *path.parents):
        status = folder.stat()
        if status.st_uid == account.uid:
            wanted = 0o100
        elif status.st_gid == account.gid:
            wanted = 0o010
        else:
            wanted = 0o001
        if not status.st_mode & wanted:
            return False
    return True


def spawn(
    argv: Sequence[str],
    *,
    stdout: int | IO[bytes],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    account: Account | None = None,
    death_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own; the kernel sends it `death_signal` when we die.

    Call from a thread that lives as long as the child should: Linux ties the signal to the thread.

    Args:
        argv: program and arguments.
        stdout: where both output and errors go.
        env: the whole environment; ours when None.
        cwd: working directory; ours when None.
        account: whom to run as; ourselves when None.
        death_signal: what the kernel sends the child when we die.

    Raises:
        OpsError: the program can't be started.
    """
    parent = os.getpid()

    def prepare() -> None:  # runs in the child, between fork and exec
        if account is not None:
            _become(account)
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
            if os.getppid() != parent:  # we died before the line above
                os._exit(1)

    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=prepare,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise OpsError(f"cannot start {argv[0]}: {error}") from error


def _become(account: Account) -> None:
    keep = account.pass_closed_doors and _libc is not None and _SYS_CAPSET is not None
    if keep and _libc is not None:
        _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        # Without this bit access(2), with which initdb looks for postgres, forgets the capability.
        _libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    if keep and _libc is not None:
        _libc.syscall(_SYS_CAPSET, _CAP_HEADER, _CAP_DATA)
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
