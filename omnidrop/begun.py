"""Notes of what was begun, so that a crash of the process costs one clip and not the run.

A decoder is native code: on a damaged file it can end the whole process, and no exception tells.
So a run over many clips notes each one before it is read. A note that is still there at the next
call names the clip that the process ended in; that clip is then left out, as a failure:

- at once, if the process crashed: Python writes the signal into the note as it dies;
- after two ends in a row, if the process was killed from outside, as the system does when memory
  runs out.

Where two clips were being read at once, either may be the cause: both are suspects, which are to be
read one at a time, and neither is left out for that end of the process.

Several processes may share a folder: each has a note of its own, and holds a lock on it.
"""

from __future__ import annotations

import faulthandler
import glob
import json
import os
import re
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from omnidrop.errors import MediaError

_TRIES = 2  # ends of the process in one clip after which it is left out, without a crash


@dataclass
class _Note:
    """One clip that a process ended in.

    Attributes
    ----------
    times : int
        How often, while no other clip was being read.
    signal : str
        What it crashed with; empty if it was killed.
    suspect : bool
        Whether it was being read with another one.
    """

    times: int
    signal: str = ""
    suspect: bool = False

    @property
    def is_lost(self) -> bool:
        return bool(self.signal) or self.times >= _TRIES


class Begun:
    """The notes of one run: a context manager. Without a folder it can write to, it does nothing.

    Parameters
    ----------
    folder : Path or None
        Holds the notes; None for no notes.
    prefix : str
        Of their names.
    keep : bool
        Whether a clip stays left out in later calls too, as long as it does not change.
    """

    def __init__(self, folder: Path | None, prefix: str = "begun", *, keep: bool = False) -> None:
        self._folder, self._prefix, self._keep = folder, prefix, keep
        self._notes: dict[str, _Note] = {}
        self._path: Path | None = None
        self._stream: IO[bytes] | None = None
        self._was_enabled = False
        self._reading: list[str] = []
        self._lock = threading.RLock()

    def __enter__(self) -> Begun:
        if self._folder is None:
            return self
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self._folder.glob(f"{glob.escape(self._prefix)}-*")):
                with suppress(OSError):
                    self._collect(path)
            self._path = self._folder / f"{self._prefix}-{uuid.uuid4().hex[:12]}"
            self._stream = self._path.open("w+b", buffering=0)
            _lock(self._stream)
            self._was_enabled = faulthandler.is_enabled()
            faulthandler.enable(self._stream)
            self.end()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is None or self._path is None:
            return
        self.end()
        if self._was_enabled and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
        else:
            faulthandler.disable()
        self._stream.close()
        self._stream = None
        if not (self._keep and any(note.is_lost for note in self._notes.values())):
            with suppress(OSError):
                self._path.unlink()

    @contextmanager
    def reading(self, path: Path, *span: float | None) -> Iterator[None]:
        """Note that a clip is read, until the block ends.

        Raises
        ------
        MediaError
            If a process ended in this clip before; the clip is not to be read.
        """
        self.note(path, *span)
        try:
            yield
        finally:
            self.forget(path, *span)

    def note(self, path: Path, *span: float | None) -> None:
        """Note that a clip is read, until `forget`.

        Raises
        ------
        MediaError
            As `reading`.
        """
        key = _key(path, span)
        with self._lock:
            note = self._notes.get(key)
            if note is not None and note.is_lost:
                raise _lost(path, note)
            times, suspect = (0, False) if note is None else (note.times, note.suspect)
            self._notes[key] = _Note(times + 1, suspect=suspect)
            self._reading.append(key)
            self._write()

    def forget(self, path: Path, *span: float | None) -> None:
        """Note that a clip is no longer read; nothing happens if it was not."""
        key = _key(path, span)
        with self._lock:
            if key in self._reading:
                self._notes.pop(key, None)
                self._reading.remove(key)
                self._write()

    def goes_on(self, path: Path, *span: float | None) -> None:
        """Note that something came of a clip that is still being read: earlier ends do not count.

        Parameters
        ----------
        path : Path
        *span : float or None
            As `reading` was given them.
        """
        with self._lock:
            note = self._notes.get(_key(path, span))
            if note is not None and (note.times > 1 or note.suspect):
                note.times, note.suspect = 1, False
                self._write()

    @property
    def has_suspects(self) -> bool:
        """Whether there are clips that are not to be read together with another."""
        with self._lock:
            return any(note.suspect and not note.is_lost for note in self._notes.values())

    def end(self) -> None:
        """Note that nothing is being read."""
        with self._lock:
            self._reading.clear()
            self._write()

    def _write(self) -> None:
        if self._stream is None:
            return
        earlier = {key: [n.times, n.signal, n.suspect] for key, n in self._notes.items()}
        line = json.dumps({"reading": self._reading, "notes": earlier}) + "\n"
        with suppress(OSError):
            self._stream.seek(0)
            self._stream.truncate()
            self._stream.write(line.encode())

    def _collect(self, path: Path) -> None:
        """Take over the notes of a process that is no more."""
        with path.open("r+b") as stream:
            if not _lock(stream):
                return
            line, _, rest = stream.read().decode("utf-8", "replace").partition("\n")
        path.unlink()
        try:
            held: dict[str, Any] = json.loads(line)
            notes = {
                key: _Note(int(times), str(how), any(suspect))
                for key, (times, how, *suspect) in held["notes"].items()
            }
            reading = held["reading"]
            reading = [reading] if isinstance(reading, str) else [*(reading or ())]
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # cut short
        crash = re.search(r"Fatal Python error: (.+)", rest)
        for key in reading:
            note = notes.get(key)
            if note is None:
                continue
            if len(reading) > 1:
                note.times, note.suspect = note.times - 1, True
            elif crash:
                note.signal = crash[1].strip()
        self._notes |= notes


def state_folder() -> Path:
    """Return the user's folder for what a program remembers between calls; it may not exist."""
    given = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(given or Path.home() / ".local" / "state") / "omnidrop"


def _lost(path: Path, note: _Note) -> MediaError:
    if note.signal:
        what = f"Reading this clip ended the whole process in an earlier call ({note.signal})."
    else:
        what = f"The process was killed {note.times} times while it read this clip."
    return MediaError(
        what,
        path=path,
        hint="It is left out; convert it, for example to mp4, and name the new file.",
    )


def _key(path: Path, span: tuple[float | None, ...]) -> str:
    """Return a name for a clip's contents as they are read by these versions."""
    from importlib.metadata import version  # imports email and more

    with suppress(OSError, ValueError):
        status = path.stat()
        return json.dumps(
            [os.path.abspath(path), status.st_size, status.st_mtime_ns, span, version("av")]
        )
    return json.dumps([str(path), span])


def _lock(stream: IO[bytes]) -> bool:
    """Lock a file until it is closed; False if a living process has locked it.

    Windows has no such lock, but deletes no file that is open.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
