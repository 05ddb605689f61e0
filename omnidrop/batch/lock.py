"""One writer for each file of answers."""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from omnidrop.errors import OutputError, UsageError

#: What a file system without locks says.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class Lock:
    """A lock on a file of answers, held until `release` or until the process ends.

    It is a file beside it, `.NAME.lock`, with process, host and time of who holds it. That content
    is only for people: what counts is the system's lock on the file, which ends with its process
    however that ends. Windows, and file systems without locks, have none; then nothing is held.

    Parameters
    ----------
    path : Path
        The file of answers.

    Raises
    ------
    UsageError
        If another process holds it; says which.
    OutputError
        If the lock's file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = lock_path(path)
        self._handle = _locked(self._path)
        if self._handle is None:
            raise UsageError(
                f"Another process writes to this file: {holder(path)}.",
                path=path,
                hint="Wait for it, name another --out, or divide the rows: --shard 1/2 here and "
                "--shard 2/2 there.",
            )
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
        with suppress(OSError):  # a full disk: the lock holds without it
            os.ftruncate(self._handle, 0)
            os.write(self._handle, text.encode())

    def release(self) -> None:
        """Give the lock back; its file is removed."""
        if self._handle is not None:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._handle)
            self._handle = None


def lock_path(path: Path) -> Path:
    """Return the lock's file of a file of answers."""
    return path.with_name(f".{path.name}.lock")


def holder(path: Path) -> str | None:
    """Return who holds the lock of a file of answers, in words; None if nobody does."""
    found = lock_path(path)
    if not found.exists():
        return None
    try:
        handle = _locked(found)
    except OutputError:
        return None
    if handle is not None:
        os.close(handle)
        return None
    with suppress(OSError):
        return found.read_text("utf-8", "replace").strip() or "one that has just started"
    return "one that has just started"


def _locked(path: Path) -> int | None:
    """Return a handle with a lock on a file, which is made; None if another process has it."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as problem:
            raise OutputError(
                f"The answers cannot be written there ({problem.strerror}).",
                path=path.parent,
                hint="Give --out another folder.",
            ) from problem
        try:
            import fcntl
        except ImportError:
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno in _NO_LOCKS:
                return handle
            os.close(handle)
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # its last holder has removed the file in the meantime
