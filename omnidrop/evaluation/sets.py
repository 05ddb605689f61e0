"""Question sets by name: a file, the built-in `avsynth`, or FORMAT:FOLDER of a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omnidrop.errors import MediaError, UsageError, printable
from omnidrop.evaluation.benchmarks.avsynth import NAME as AVSYNTH
from omnidrop.evaluation.benchmarks.avsynth import avsynth
from omnidrop.evaluation.benchmarks.layouts import LAYOUTS
from omnidrop.evaluation.items import QuestionSet
from omnidrop.evaluation.question_files import read_items


def read_set(
    source: str | Path, *, videos: str | Path | None = None, limit: int | None = None
) -> QuestionSet:
    """Read a question set.

    Parameters
    ----------
    source : str or Path
        A JSONL, CSV, TSV or Parquet file, "avsynth", or FORMAT:PATH with a format of `formats()`.
    videos : path, optional
        Folder of the clips; by default they are where the set's layout has them, relative to the
        file's folder.
    limit : int, optional
        Take only the first questions.

    Raises
    ------
    UsageError
        If the set cannot be understood; names line and field. Also if the clips of `avsynth` have
        not been made; names the command.
    MediaError
        If its file cannot be read, or none of its clips is there.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} leaves no question.", hint="Give 1 or more.")
    folder = None if videos is None else Path(videos)
    if folder is not None and not folder.is_dir():
        raise MediaError("There is no such folder of clips.", path=folder, hint="Check --videos.")
    kind, colon, rest = str(source).partition(":")
    if str(source) == AVSYNTH:
        found = avsynth(None, folder)
    elif colon and kind in formats():
        found = formats()[kind](Path(rest), folder)
    else:
        path = Path(source)
        found = read_file(path, folder)
    _check(found)
    return found if limit is None else found.part(found.items[:limit])


def formats() -> dict[str, Callable[[Path, Path | None], QuestionSet]]:
    """Return the benchmark formats that FORMAT:PATH can name, each with its reader."""
    return dict(LAYOUTS)


def read_file(path: Path, videos: Path | None = None) -> QuestionSet:
    """Read a file of questions; `omnidrop.evaluation.question_files` describes its fields."""
    known = ", ".join([AVSYNTH, *(f"{name}:FOLDER" for name in LAYOUTS)])
    items = read_items(path, videos or path.parent, f"Name a file of questions or one of: {known}.")
    return QuestionSet(path.stem, tuple(items), path)


def _check(found: QuestionSet) -> None:
    if not found.items:
        raise UsageError("The question set holds no question.", path=found.source)
    seen: set[str] = set()
    for item in found.items:
        if item.id in seen:
            raise UsageError(f"id {printable(item.id)!r} is used twice.", path=found.source)
        seen.add(item.id)
    if not any(video.is_file() for video in found.videos):
        raise MediaError(
            f"None of the {len(found.videos)} clips of {found.name} is there.",
            path=found.videos[0],
            hint="Name their folder with --videos.",
        )
