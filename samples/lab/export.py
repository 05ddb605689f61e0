"""Write the lab model as a checkpoint folder that transformers loads without extra code."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from recipe.export import dump, write_model, write_tokenizer
from tokenizers import Tokenizer

from .source import RENAMED

#: Files of the demo model that hold nothing about its decoder or its vocabulary.
SHARED = ("preprocessor_config.json", "video_preprocessor_config.json")


def export(
    model: torch.nn.Module, tok: Tokenizer, folder: Path, demo: Path, kept: dict[str, float]
) -> None:
    """Write config, weights in bfloat16, tokenizer and processors into `folder`.

    Parameters
    ----------
    model : Module
        The thinker, its encoders with the projector folded in.
    tok : Tokenizer
    folder, demo : Path
    kept : dict
        How well the language was kept; written beside the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        shutil.copy(demo / name, folder / name)
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *RENAMED.values())
    write_tokenizer(tok, folder, special, longest=8192, answer=32)
    dump(folder / "language.json", kept)
    write_model(model, folder)
