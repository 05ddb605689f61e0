"""Checks a checkpoint's folder before anything of it is parsed: files, and counts of layers.

A folder may come from anywhere. Here nothing is opened that can block or has no end, and no count
is trusted that would take long to build. Neither torch nor transformers is imported.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omnidrop.errors import ModelError

#: Remedies: for files that are incomplete, and for files that do not belong together.
AGAIN = "Download it again, or name another model with --model."
BELONGS = "Take all files of the checkpoint from one place: download it again."

#: Suffixes of the files that this package and its libraries read from a checkpoint.
READ = (".json", ".txt", ".jinja", ".model", ".safetensors")

#: Folder of a checkpoint in which transformers looks for more chat templates.
TEMPLATES = "additional_chat_templates"

#: Bytes of a text file, at most; the largest that are published are tokenizers of 30 MB.
LARGEST_TEXT = 256 * 2**20

#: Start and largest size of a file that git-lfs leaves in place of the real one.
POINTER, POINTER_BYTES = b"version https://git-lfs.github.com/spec/", 1024

#: Fields of a config that count layers: a model is built layer by layer.
COUNTS = ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers", "depth")

#: Fields of a config that are sizes, and so at least 1.
SIZES = (
    *("hidden_size", "intermediate_size", "out_hidden_size", "d_model", "output_dim"),
    *("num_attention_heads", "num_key_value_heads", "num_heads", "encoder_attention_heads"),
    *("head_dim", "encoder_ffn_dim", "vocab_size", "num_mel_bins", "in_channels", "in_chans"),
    *("patch_size", "temporal_patch_size", "spatial_merge_size", "window_size", "n_window"),
    *("max_position_embeddings", "max_source_positions"),
)

#: Largest size: that of a table of positions which the audio encoder computes, and of others.
LARGEST_TABLE, LARGEST_SIZE = 2**20, 2**31 - 1


def check_files(folder: Path) -> None:
    """Check every file of a folder that loading may open.

    Raises
    ------
    ModelError
        As `check_file`; names the file.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(READ))
    for name in names:
        check_file(folder / name)
    for path in sorted((folder / TEMPLATES).glob("*.jinja")):
        check_file(path)


def check_file(path: Path) -> None:
    """Check that reading a file ends: it is a regular file, not too large, and itself.

    A path that does not exist, or is a folder, is left to whoever opens it.

    Raises
    ------
    ModelError
        If it is a device, a pipe or a socket, a text file of more than `LARGEST_TEXT` bytes, or
        git-lfs's pointer to a file.
    """
    try:
        found = path.stat()
    except OSError:
        return
    if stat.S_ISDIR(found.st_mode):
        return
    if not stat.S_ISREG(found.st_mode):
        raise ModelError(
            "This is a device or a pipe, not a regular file.",
            path=path,
            hint="Put the file itself into the model's folder.",
        )
    if path.suffix != ".safetensors" and found.st_size > LARGEST_TEXT:
        raise ModelError(
            f"This file has {found.st_size / 1e6:.0f} MB; a model's settings and tokenizer have "
            "less.",
            path=path,
            hint=AGAIN,
        )
    if found.st_size <= POINTER_BYTES and _is_pointer(path):
        raise ModelError(
            "This is git-lfs's pointer to the file, not the file itself.",
            path=path,
            hint="Type in the model's folder: git lfs pull",
        )


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:  # reported by whoever needs the file
        return False


def check_numbers(
    config: dict[str, Any], tensors: int, path: Path, unused: Sequence[str] = ()
) -> None:
    """Check a config's counts of layers against the number of tensors, and its sizes.

    Parameters
    ----------
    config : dict
        Of config.json.
    tensors : int
        Number of tensors in the files.
    path : Path
        Of config.json, for the error.
    unused : sequence of str
        Prefixes of tensors that are not loaded; the parts of the config with these names are not
        checked.

    Raises
    ------
    ModelError
        If there are more layers than tensors, or a size is below 1 or absurd; names the field.
    """
    skipped = tuple(prefix.rstrip(".") for prefix in unused)
    used = {k: v for k, v in config.items() if not k.startswith(skipped)} if skipped else config
    for name, value in _integers(used, ""):
        field = name.rpartition(".")[2]
        if field in COUNTS and not 0 <= value <= tensors:
            problem = f"but the files hold {tensors} tensors"
        elif field in SIZES and value < 1:
            problem = "but must be 1 or more"
        elif field in SIZES and value > _largest(field):
            problem = f"which is more than {_largest(field)}"
        else:
            continue
        raise ModelError(f"{name} is {_short(value)}, {problem}.", path=path, hint=BELONGS)


def _largest(field: str) -> int:
    return LARGEST_TABLE if field == "max_source_positions" else LARGEST_SIZE


def _short(count: int) -> str:
    """Return a count as text; Python refuses to write integers of thousands of digits."""
    return str(count) if abs(count) < 10**20 else "a number of more than 20 digits"


def _integers(part: dict[str, Any], prefix: str) -> Iterator[tuple[str, int]]:
    """Yield the dotted name and value of every whole number in a config."""
    for name, value in part.items():
        if isinstance(value, dict):
            yield from _integers(value, f"{prefix}{name}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{prefix}{name}", value


def refuse_other_shapes(found: Any, folder: Path) -> None:
    """Raise a `ModelError` if weights have other shapes than the config states.

    Parameters
    ----------
    found : collection of (str, shape, shape)
        Transformers' `mismatched_keys`: name, shape in the files, shape of the model.
    folder : Path
    """
    if not found:
        return
    name, stored, wanted = min(found, key=lambda item: str(item[0]))
    more = f" {len(found) - 1} more do not fit either." if len(found) > 1 else ""
    raise ModelError(
        f"The weight {name} is {_shape(stored)}, but config.json asks for {_shape(wanted)}.{more}",
        path=folder,
        hint=BELONGS,
    )


def refuse_missing(found: Any, folder: Path) -> None:
    """Raise a `ModelError` if weights are missing; `found` is transformers' `missing_keys`."""
    lost = sorted(map(str, found))
    if lost:
        raise ModelError(
            f"The checkpoint lacks {len(lost)} of the model's weights, such as {lost[0]}.",
            path=folder,
            hint=AGAIN,
        )


def _shape(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes)) or "one number"
