"""Write the lab model as a checkpoint folder that transformers loads without extra code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from recipe.export import NAMES, TEMPLATE
from recipe.shape import parts
from safetensors.torch import save_file
from tokenizers import Tokenizer

from .source import RENAMED

#: Files of the demo model that hold nothing about its decoder or its vocabulary.
SHARED = ("preprocessor_config.json", "video_preprocessor_config.json")


def _dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


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
    tok.save(str(folder / "tokenizer.json"))
    vocab = json.loads(tok.to_str())["model"]
    _dump(folder / "vocab.json", vocab["vocab"])
    pairs = [m if isinstance(m, str) else " ".join(m) for m in vocab["merges"]]
    lines = "#version: 0.2\n" + "\n".join(pairs) + "\n"
    (folder / "merges.txt").write_text(lines, encoding="utf-8")
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *RENAMED.values())
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    _dump(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": {
                str(tok.token_to_id(name)): {"content": name, **plain, "special": True}
                for name in special
            },
            "additional_special_tokens": list(special[1:]),
            "extra_special_tokens": NAMES,
            **NAMES,
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 8192,
            "pad_token": "<|endoftext|>",
            "processor_class": "Qwen2_5OmniProcessor",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    _dump(folder / "chat_template.json", {"chat_template": TEMPLATE})
    _dump(
        folder / "generation_config.json",
        {
            "bos_token_id": tok.token_to_id("<|im_start|>"),
            "eos_token_id": tok.token_to_id("<|im_end|>"),
            "pad_token_id": tok.token_to_id("<|endoftext|>"),
            "do_sample": False,
            "max_new_tokens": 32,
        },
    )
    _dump(folder / "language.json", kept)
    config = model.config.to_dict()
    config["architectures"] = ["Qwen2_5OmniThinkerForConditionalGeneration"]
    config["dtype"] = "bfloat16"
    config.pop("_name_or_path", None)
    _dump(folder / "config.json", config)
    audio, vision, text = parts(model)
    named = {"audio_tower": audio, "visual": vision, "model": text, "lm_head": model.lm_head}
    weights = {
        f"thinker.{part}.{name}": tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for part, module in named.items()
        for name, tensor in module.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
