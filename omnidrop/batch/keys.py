"""What makes two rows the same: the clip's content, the span, the question and the choices.

The name of a file is no part of it, so a clip that was renamed or moved is known. The settings are
a second key, `Setup.key`, which is the same for all rows of a run: a row is done if both agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omnidrop.batch.rows import Row
from omnidrop.evaluation.records import flat
from omnidrop.evaluation.records import key_of as hashed
from omnidrop.files import plain

#: Files up to this size are hashed whole; of larger ones, so many blocks of so many bytes.
WHOLE, _BLOCKS, _BLOCK = 4 << 20, 64, 16 << 10


def content_of(path: Path) -> str | None:
    """Return what identifies a file's content, whatever its name, place and dates.

    Up to 4 MiB the whole file is hashed (BLAKE2b). Of a larger one it is the size and 64 blocks of
    16 KiB evenly spread over it, the first and the last included: 1 MiB to read, however large the
    file. Two files that differ only between the blocks are taken as one; among media that takes a
    patch in place. A container stores the size and place of every frame at its head or tail, which
    is hashed, and another recording has other sizes.

    Returns
    -------
    str or None
        None if the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with suppress(OSError, ValueError), path.open("rb") as handle:
        handle.seek(0, 2)
        size = handle.tell()
        handle.seek(0)
        digest.update(f"{size}|".encode())
        if size <= WHOLE:
            digest.update(handle.read())
        else:
            for number in range(_BLOCKS):
                handle.seek((size - _BLOCK) * number // (_BLOCKS - 1))
                digest.update(handle.read(_BLOCK))
        return digest.hexdigest()
    return None


def key_of(row: Row, content: str | None) -> str:
    """Return a row's key.

    Parameters
    ----------
    row : Row
    content : str or None
        `content_of` its clip; without any, the path stands for it.
    """
    clip = [content] if content is not None else ["unread", str(row.clip)]
    return hashed(clip, row.start, row.end, row.question, row.choices)


@dataclass(frozen=True)
class Setup:
    """What all answers of a run have in common: model, method, sampling and generation.

    Attributes
    ----------
    settings : mapping
        Nested plain values. The device is none of them: it changes the rounding, not the question.
        Nor is `anyway`, which changes which questions are asked, and no answer.
    """

    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The same for equal settings."""
        return hashed(self.settings)[:12]

    def first_difference(self, other: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
        """Return name, own value and other value of the first setting that differs."""
        mine, theirs = flat(self.settings), flat(other)
        for name in dict.fromkeys([*mine, *theirs]):
            if mine.get(name) != theirs.get(name):
                return name, mine.get(name), theirs.get(name)
        return None


def fingerprint(folder: Path) -> str:
    """Return what identifies a checkpoint: its config and the content of its weights' files."""
    digest = hashlib.blake2b(digest_size=16)
    with suppress(OSError):
        digest.update((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"|{path.name}|{content_of(path)}".encode())
    return digest.hexdigest()


def plain_fields(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain values, as a setup holds them."""
    found: dict[str, Any] = plain(asdict(value))
    return found
