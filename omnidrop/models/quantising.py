"""4-bit and 8-bit loading: selects the parts to quantise, and checks that they were."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from omnidrop.errors import ModelError
from omnidrop.models.experts import SmallExperts, is_expert
from omnidrop.models.locations import Weight
from omnidrop.models.mapped import MappedPages, embedding_table, replace
from omnidrop.models.packed import GROUP, PackedEmbedding, PackedLinear, bytes_of, packed, packed_8
from omnidrop.models.scratch import Scratch

#: Bytes per weight of a linear layer quantised by bitsandbytes, and of experts, scales included.
QUANTISED = {"4bit": 0.53, "8bit": 1.01}
#: The same on a CPU (`omnidrop.models.packed`), experts excepted.
PACKED = {"4bit": 0.5 + 4 / GROUP, "8bit": 1.002}

#: Names of the table of embeddings and of the output layer.
_TABLE = re.compile(r"(^|\.)(embed_tokens|lm_head)\.weight$")


def packed_bytes(weight: Weight, kind: str, quantised: bool) -> int | None:
    """Return the bytes of a weight that loading on a CPU quantises; None if it does not.

    Parameters
    ----------
    weight : Weight
    kind : {"4bit", "8bit"}
    quantised : bool
        Whether it is one of those that the family quantises.
    """
    if quantised and is_expert(weight.name):
        return round(weight.numel * QUANTISED[kind])
    if len(weight.shape) != 2:
        return None
    if quantised:
        return bytes_of(kind, weight.shape[0], weight.shape[1])
    return bytes_of("8bit", weight.shape[0], weight.shape[1]) if is_table(weight.name) else None


def is_table(weight: str) -> bool:
    """Return whether the weight of this name is the table of embeddings or `lm_head`."""
    return bool(_TABLE.search(weight))


def language_model(model: Any) -> Any:
    """Return the text model inside a model, wherever this version of transformers has it."""
    return getattr(model.model, "language_model", model.model)


def quantisation(kind: str, made_of: Any, config: Any, dtype: torch.dtype) -> Any:
    """Return a config that quantises the decoder's linear layers and nothing else.

    Parameters
    ----------
    kind : {"4bit", "8bit"}
    made_of : type
        The model class to load.
    config : PreTrainedConfig
        Config of the model.
    dtype : torch.dtype
        Dtype to compute in.

    Returns
    -------
    BitsAndBytesConfig

    Notes
    -----
    Skipped names are matched from the start of the dotted name, and the names differ between
    versions of transformers, so they are taken from the class itself.
    """
    from transformers import BitsAndBytesConfig

    with torch.device("meta"):
        empty = made_of(config)
    outside = _without(empty, language_model(empty).layers)
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=outside)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=outside,
    )


def _without(module: torch.nn.Module, decoder: torch.nn.Module, name: str = "") -> list[str]:
    """Name the largest parts of a module that hold linears and nothing of the decoder.

    Few names matter: transformers compiles a regular expression for each name at each module. With
    the name of every linear, that took longer for a 3B than reading its weights.
    """
    if module is decoder:
        return []
    if all(part is not decoder for part in module.modules()):
        linear = any(isinstance(part, torch.nn.Linear) for part in module.modules())
        return [name] if linear else []
    return [
        found
        for child, part in module.named_children()
        for found in _without(part, decoder, f"{name}.{child}".lstrip("."))
    ]


def pack(model: Any, kind: str, scratch: Scratch) -> None:
    """Quantise a model on a CPU in place: the decoder's linear layers and the tables.

    The model's weights are mapped from its files, so only the quantised ones take memory; a matrix
    is read once, and its pages are given back.

    Parameters
    ----------
    model : Module
    kind : {"4bit", "8bit"}
        For the linear layers; the table of embeddings and the output layer take 8 bits.
    scratch : Scratch
        Of the dtype to compute in.
    """
    table, head = embedding_table(model), model.get_output_embeddings()
    tied = head is not None and head.weight.data_ptr() == table.weight.data_ptr()
    pages = MappedPages()
    entries = packed_8(table.weight, scratch)
    pages.give_back(table.weight)
    outputs = entries if tied or head is None else packed_8(head.weight, scratch)
    if head is not None:
        pages.give_back(head.weight)

    def table_or_head(part: torch.nn.Module) -> torch.nn.Module | None:
        if part is table:
            return PackedEmbedding(entries)
        return PackedLinear(outputs) if part is head else None

    def linear(part: torch.nn.Module) -> torch.nn.Module | None:
        if type(part) is not torch.nn.Linear:
            return None
        small = PackedLinear(packed(part.weight, kind, scratch), part.bias)
        pages.give_back(part.weight)
        return small

    replace(model, table_or_head)
    replace(language_model(model).layers, linear)


def check_quantised(model: Any, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Check that the decoder was quantised, all of it and nothing else.

    Parameters
    ----------
    model : Module
    folder : Path
        The checkpoint's, for the error.
    wanted : callable
        Whether the weight of a name is to be quantised.

    Raises
    ------
    ModelError
        If not; names the part.
    """
    kinds: tuple[type, ...] = (PackedLinear, SmallExperts)
    if model.device.type != "cpu":
        from bitsandbytes.nn import Linear4bit, Linear8bitLt

        kinds += (Linear4bit, Linear8bitLt)
    inside = {id(part) for part in language_model(model).layers.modules()}
    if isinstance(embedding_table(model), PackedEmbedding):
        inside.add(id(model.get_output_embeddings()))
    found = {
        name: id(part) in inside for name, part in model.named_modules() if isinstance(part, kinds)
    }
    wrong = [name for name, in_decoder in found.items() if not in_decoder]
    left = [
        name
        for name, weight in model.named_parameters()
        if weight.is_floating_point() and wanted(name)
    ]
    what = None
    if wrong:
        what = f"quantised {wrong[0]}"
    elif not found:
        what = "quantised nothing"
    elif left:
        what = f"left {left[0]} and {len(left) - 1} more weights as they were"
    if what is not None:
        raise ModelError(
            f"These versions of transformers, bitsandbytes and PyTorch {what}.",
            path=folder,
            hint="Load without --4bit and --8bit, or install tested versions of them.",
        )
