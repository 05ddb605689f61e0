"""4-bit and 8-bit loading: selects the parts to quantise, and checks that they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from omnidrop.errors import ModelError
from omnidrop.models.experts import SmallExperts

#: Bytes per weight of a quantised linear layer, scales included.
QUANTISED = {"4bit": 0.53, "8bit": 1.01}


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
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    inside = {id(part) for part in language_model(model).layers.modules()}
    found = {
        name: id(part) in inside
        for name, part in model.named_modules()
        if isinstance(part, (Linear4bit, Linear8bitLt, SmallExperts))
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
            f"This pair of transformers and bitsandbytes {what}.",
            path=folder,
            hint="Load without --4bit and --8bit, or install tested versions of both.",
        )
