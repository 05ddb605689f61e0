"""Checks a checkpoint from its config and the headers of its files, before a weight is read.

Transformers itself assigns the tensors to the model's weights, on torch's meta device: names, old
layouts, fused experts and shapes are judged by the code that will load them, in a second or two.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from omnidrop.errors import ModelError, OmniDropError
from omnidrop.models.codec import Codec
from omnidrop.models.folder_checks import BELONGS, refuse_missing, refuse_other_shapes
from omnidrop.models.from_transformers import quiet
from omnidrop.models.locations import Weight, weights
from omnidrop.models.pinned import TYPES

#: Names of experts' tensors: layer, number, part.
_EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(.+)")
#: Parts of an expert.
_GATE, _UP, _DOWN = "gate_proj.weight", "up_proj.weight", "down_proj.weight"
_PARTS = {_GATE, _UP, _DOWN}


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn what a library raises about a checkpoint's files into a `ModelError`."""
    try:
        yield
    except (OmniDropError, MemoryError):
        raise
    except Exception as error:  # libraries raise any type for damaged files
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"This model cannot be loaded ({type(error).__name__}: {reason}).",
            path=folder,
            hint="Check its files, or name another model with --model.",
        ) from error


def check_weights(kind: Any, config: Any, folder: Path, unused: Sequence[str] = ()) -> None:
    """Check that the files hold every weight of a model, in its shape; no weight is read.

    Parameters
    ----------
    kind : type
        The model class of transformers.
    config : PreTrainedConfig
        Config of the model.
    folder : Path
    unused : sequence of str
        Prefixes of tensors that are not loaded.

    Raises
    ------
    ModelError
        If a tensor is missing or has another shape; names it.
    """
    listed = with_joined_experts(weights(folder, unused))
    state = {
        weight.name: torch.empty(
            weight.shape, dtype=TYPES.get(weight.dtype, torch.uint8), device="meta"
        )
        for weight in listed
    }
    with quiet():
        _, report = kind.from_pretrained(
            None,
            state_dict=state,
            config=copy.deepcopy(config),
            dtype=torch.bfloat16,
            device_map={"": "meta"},
            attn_implementation="eager",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            local_files_only=True,
        )
    refuse_other_shapes(report["mismatched_keys"], folder)
    refuse_missing(report["missing_keys"], folder)


def with_joined_experts(listed: Sequence[Weight]) -> list[Weight]:
    """Return weights with the experts of a layer joined as transformers holds them, if all agree.

    Transformers takes a second for a thousand experts to find out how to join them.
    """
    layers: dict[str, dict[str, dict[int, Weight]]] = {}
    for weight in listed:
        if named := _EXPERT.fullmatch(weight.name):
            layers.setdefault(named[1], {}).setdefault(named[3], {})[int(named[2])] = weight
    joined: dict[str, list[Weight]] = {}
    for layer, parts in layers.items():
        shapes = {
            part: {weight.shape for weight in found.values()} for part, found in parts.items()
        }
        numbers = {tuple(sorted(found)) for found in parts.values()}
        if parts.keys() != _PARTS or numbers != {tuple(range(len(parts[_DOWN])))}:
            continue
        if any(len(found) > 1 for found in shapes.values()) or shapes[_GATE] != shapes[_UP]:
            continue
        (gate,), (down,), count = shapes[_GATE], shapes[_DOWN], len(parts[_DOWN])
        if len(gate) != 2:
            continue
        dtype = parts[_DOWN][0].dtype
        joined[layer] = [
            Weight(f"{layer}.gate_up_proj", dtype, (count, 2 * gate[0], gate[1])),
            Weight(f"{layer}.down_proj", dtype, (count, *down)),
        ]
    rest = [
        weight
        for weight in listed
        if not ((named := _EXPERT.fullmatch(weight.name)) and named[1] in joined)
    ]
    return rest + [weight for pair in joined.values() for weight in pair]


def check_experts(folder: Path, count: int, unused: Sequence[str] = ()) -> None:
    """Check experts that are one tensor each in the files; nothing else is checked.

    Joined by transformers, a bad one would not be named.

    Parameters
    ----------
    folder : Path
    count : int
        Experts per layer.
    unused : sequence of str
        Prefixes of tensors that are not loaded.

    Raises
    ------
    ModelError
        If one is missing or has another shape than most; names it.
    """
    found: dict[tuple[str, int, str], Weight] = {}
    for weight in weights(folder, unused):
        if named := _EXPERT.fullmatch(weight.name):
            found[named[1], int(named[2]), named[3]] = weight
    layers, parts = {layer for layer, _, _ in found}, {part for _, _, part in found}
    usual = {
        part: Counter(w.shape for (_, _, p), w in found.items() if p == part).most_common(1)[0][0]
        for part in parts
    }
    wanted = {(layer, i, part) for layer in layers for i in range(count) for part in parts}
    refuse_missing([f"{layer}.{i}.{part}" for layer, i, part in wanted - found.keys()], folder)
    refuse_other_shapes(
        [
            (weight.name, weight.shape, usual[part])
            for (_, _, part), weight in found.items()
            if weight.shape != usual[part]
        ],
        folder,
    )


def check_vocabulary(codec: Codec | None, rows: int, folder: Path) -> None:
    """Check that the embedding table has a row for every token.

    Raises
    ------
    ModelError
        If the tokenizer has an id that the table lacks.
    """
    if codec is not None and codec.size > rows:
        raise ModelError(
            f"The tokenizer has ids up to {codec.size - 1}, but the model's vocabulary has {rows}.",
            path=folder / "tokenizer.json",
            hint=BELONGS,
        )


def check_sections(sections: Any, head_dim: int, folder: Path, count: int = 3) -> None:
    """Check the sections of M-RoPE: dimensions for time, height and width, half a head in all.

    Parameters
    ----------
    sections : object
        As the config has them.
    head_dim : int
    folder : Path
    count : int
        How many there must be: 4 for Sync-RoPE, which ends with time again.

    Raises
    ------
    ModelError
        If there are not so many positive whole numbers, or their sum is wrong.
    """
    valid = (
        isinstance(sections, (list, tuple))
        and len(sections) == count
        and all(type(size) is int and size > 0 for size in sections)
    )
    if not valid or sum(sections) != head_dim // 2:
        number = {3: "three", 4: "four"}.get(count, str(count))
        raise ModelError(
            f"mrope_section is {sections}, but must be {number} numbers that add up to "
            f"{head_dim // 2}, half of a head.",
            path=folder / "config.json",
            hint=BELONGS,
        )
