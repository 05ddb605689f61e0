"""Encodes text to ids and decodes ids, with a checkpoint's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from omnidrop.errors import ModelError


class Codec:
    """Encodes and decodes with a tokenizer of the `tokenizers` library.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Its backend is configured by this object and must not be used by others.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        # Special tokens written in a text are plain text; `prompt` inserts the ids of real ones.
        self._backend.encode_special_tokens = True

    @property
    def size(self) -> int:
        """Number of ids, special tokens and gaps between ids included."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return ids and character offsets; see `TextEncoder.encode`."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text without special tokens."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def id(self, token: str) -> int | None:
        """Return the id of a token, or None if there is no such token."""
        return self._backend.token_to_id(token)


def read_codec(folder: Path) -> Codec | None:
    """Read the tokenizer of a checkpoint without its model.

    Returns
    -------
    Codec or None
        None if there is no `tokenizer.json`.

    Raises
    ------
    ModelError
        If the file cannot be read.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        return Codec(SimpleNamespace(backend_tokenizer=Tokenizer.from_file(str(path))))
    except Exception as error:  # the library raises a bare Exception
        raise ModelError(
            f"The tokenizer cannot be read: {error}.",
            path=path,
            hint="Take it from where the weights are from.",
        ) from error
