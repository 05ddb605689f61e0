"""A caller's terminal, files, folder and environment, lent to this process for one command."""

from __future__ import annotations

import io
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO


@dataclass(frozen=True)
class Stream:
    """How a standard stream turns text into bytes: as `io.TextIOWrapper` takes it."""

    encoding: str
    errors: str
    line_buffering: bool
    write_through: bool

    def open(self, file: int) -> TextIO:
        """Return the stream on an open file, 0 to read and 1 or 2 to write; closing keeps it."""
        raw = io.FileIO(file, "rb" if file == 0 else "wb", closefd=False)
        buffer: Any = io.BufferedReader(raw) if file == 0 else raw
        if file != 0 and not self.write_through:
            buffer = io.BufferedWriter(raw)
        elif file != 0:
            buffer = _Unbuffered(raw)
        return io.TextIOWrapper(
            buffer,
            self.encoding,
            self.errors,
            line_buffering=self.line_buffering,
            write_through=self.write_through,
        )


class _Unbuffered(io.BufferedWriter):
    """Writes at once, as with `python -u`, and whole: a raw file may write a part."""

    def write(self, data: Any) -> int:
        count = super().write(data)
        self.flush()
        return count


@dataclass(frozen=True)
class Surroundings:
    """What a command takes from the process that it is run for.

    Attributes
    ----------
    environment : dict of str
    mask : int
        Rights that new files do not get, as `os.umask` takes them.
    streams : tuple of Stream
        stdin, stdout and stderr.
    """

    environment: dict[str, str]
    mask: int
    streams: tuple[Stream, ...]


class Own:
    """This process's own files and folder, kept while they are lent out."""

    def __init__(self) -> None:
        import fcntl

        self._files = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 10) for file in (0, 1, 2)]
        self._folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.log = open(os.dup(self._files[2]), "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
        """A stream on this process's stderr, whoever has file 2."""

    @contextmanager
    def lend(self, files: Sequence[int], surroundings: Surroundings) -> Iterator[None]:
        """Take a caller's files 0, 1, 2 and its folder, and all else, until the block ends.

        Parameters
        ----------
        files : sequence of int
            stdin, stdout, stderr and the working directory, as open files of this process. They
            are closed.
        surroundings : Surroundings
        """
        environment = dict(os.environ)
        streams = sys.stdin, sys.stdout, sys.stderr
        originals = sys.__stdin__, sys.__stdout__, sys.__stderr__
        _flush(*streams[1:])
        mask = os.umask(surroundings.mask)
        lent: list[TextIO] = []
        try:
            for ours, theirs in enumerate(files[:3]):
                os.dup2(theirs, ours)
            os.fchdir(files[3])
            for file in files:
                os.close(file)
            _set_environment(surroundings.environment)
            lent = [stream.open(file) for file, stream in enumerate(surroundings.streams)]
            sys.stdin, sys.stdout, sys.stderr = lent
            sys.__stdin__, sys.__stdout__, sys.__stderr__ = lent  # type: ignore[misc, assignment]
            with warnings.catch_warnings():
                yield
        finally:
            _end(lent)
            sys.stdin, sys.stdout, sys.stderr = streams
            sys.__stdin__, sys.__stdout__, sys.__stderr__ = originals  # type: ignore[misc]
            self.take_files()
            os.fchdir(self._folder)
            os.umask(mask)
            _set_environment(environment)

    def take_files(self) -> None:
        """Take files 0, 1 and 2 back."""
        for ours, kept in enumerate(self._files):
            os.dup2(kept, ours)

    def close(self) -> None:
        """Close what was kept."""
        self.log.close()
        for file in (*self._files, self._folder):
            os.close(file)


def give_files_away() -> None:
    """Let files 0, 1 and 2 lead nowhere, because the caller that lent them has gone."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for file in (0, 1, 2):
        os.dup2(nowhere, file)
    os.close(nowhere)


def _set_environment(environment: dict[str, str]) -> None:
    if environment == dict(os.environ):
        return
    zone = os.environ.get("TZ")
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    if environment.get("TZ") != zone:
        time.tzset()


def _end(lent: Sequence[TextIO]) -> None:
    """Write what streams still hold, while their files are the caller's.

    What cannot be written must not come out later, in the next caller's file: closing drops it, and
    leaves the file open. A stderr that has nothing to write stays: a library may have kept it.
    """
    for number, stream in enumerate(lent):
        try:
            stream.flush()
            if number == 2:
                continue
        except (OSError, ValueError):
            pass
        with suppress(OSError, ValueError):
            stream.close()


def _flush(*streams: Any) -> None:
    for stream in streams:
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
