"""Atomic writes of files, conversion of values to strict JSON, and small JSON files."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError, printable

#: Bytes of the largest file that `read_small_json` reads.
LARGEST = 1 << 20


def check_target(path: Path, force: bool) -> None:
    """Check that a file can be written later.

    Parameters
    ----------
    path : Path
    force : bool
        Whether an existing file may be replaced.

    Raises
    ------
    UsageError
        If the folder does not exist, the path is a folder, the file exists, or permission is
        missing.
    """
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(
            "The folder does not exist.", path=folder, hint="Create it, or choose another."
        )
    if path.is_dir():
        raise UsageError("This is a folder.", path=path, hint="Give the name of a file.")
    if path.exists() and not force:
        raise UsageError("The file exists.", path=path, hint="Add --force to replace it.")
    if not os.access(folder, os.W_OK):
        raise UsageError(
            "There is no permission to write in this folder.", path=folder, hint="Choose another."
        )


def write_whole(path: Path, content: str | bytes, force: bool) -> None:
    """Write a file in one step; see `whole_file`."""
    with whole_file(path, force) as draft:
        draft.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


@contextmanager
def whole_file(path: Path, force: bool) -> Iterator[Path]:
    """Write a file atomically: it gets its name once it is complete.

    Parameters
    ----------
    path : Path
    force : bool
        Replace an existing file. Otherwise a file that appears in the meantime is kept.

    Yields
    ------
    Path
        An empty temporary file in the same folder, with the same suffix, to write to. It is renamed
        at the end, and deleted after an error.

    Raises
    ------
    UsageError
        As `check_target`, or if writing fails.
    """
    check_target(path, force)
    try:
        handle, name = tempfile.mkstemp(path.suffix, ".omnidrop-", path.parent)
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            mask = os.umask(0)
            os.umask(mask)
            draft.chmod(0o666 & ~mask)
            if force or not _link(draft, path):
                os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except FileExistsError:
        check_target(path, force)
        raise
    except OSError as problem:
        raise UsageError(
            f"The file cannot be written ({problem.strerror or problem}).",
            path=path,
            hint="Choose another folder.",
        ) from problem


def _link(draft: Path, path: Path) -> bool:
    """Move a complete draft to `path` unless a file exists there.

    Returns False if the file system has no hard links.
    """
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        return False
    draft.unlink()
    return True


def plain(value: Any) -> Any:
    """Convert a value to types that strict JSON has.

    NaN and infinities become None, sets become sorted lists, arrays become lists, and paths and
    other objects become text; text that is not UTF-8 is escaped.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, os.PathLike):
        return printable(value)
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """Return `value` as strict JSON text; see `plain`."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def read_small_json(path: Path, what: str, *, hint: str | None = None) -> Any:
    """Read a JSON file of at most `LARGEST` bytes.

    Parameters
    ----------
    path : Path
    what : str
        What it should be, for errors: "preset".
    hint : str, optional
        What to do about a file that cannot be read.

    Raises
    ------
    UsageError
        If it cannot be read, is too large, or is not JSON; the system's error is its cause.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"This file is too large for a {what}.", path=path)
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UsageError(
            f"The {what} cannot be read ({problem.strerror}).", path=path, hint=hint
        ) from problem
    except (ValueError, RecursionError) as problem:
        raise UsageError(f"The {what} is not JSON: {problem}.", path=path) from problem
