"""Write the trained model as a checkpoint folder that transformers loads without extra code."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from avsynth.world import COLOURS, DIGITS, INSTRUMENTS, SHAPES
from safetensors.torch import save_file
from tokenizers import Tokenizer

from .shape import parts
from .vocab import CHAT_WORDS, SPECIAL, all_words

TEMPLATE = """{%- if messages[0]['role'] != 'system' -%}
<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}<|im_end|>
{% else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or 'image' in part -%}<|vision_bos|><|IMAGE|><|vision_eos|>
{%- elif part['type'] == 'audio' or 'audio' in part -%}<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif part['type'] == 'video' or 'video' in part -%}<|vision_bos|><|VIDEO|><|vision_eos|>
{%- elif 'text' in part -%}{{ part['text'] }}
{%- endif -%}
{%- endfor -%}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
NAMES = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
LIMITS = {"shortest_edge": 3136, "longest_edge": 50176}


def dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(
    tok: Tokenizer, folder: Path, special: tuple[str, ...], *, longest: int, answer: int
) -> None:
    """Write the tokenizer, the chat template and the settings of generation.

    Parameters
    ----------
    tok : Tokenizer
    folder : Path
        Made if it is not there.
    special : tuple of str
        Special tokens, the padding first.
    longest, answer : int
        Most tokens of a prompt, and of an answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    vocab = json.loads(tok.to_str())["model"]
    dump(folder / "vocab.json", vocab["vocab"])
    pairs = [m if isinstance(m, str) else " ".join(m) for m in vocab["merges"]]
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(pairs) + "\n", encoding="utf-8"
    )
    added = {
        str(tok.token_to_id(t)): {
            "content": t,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for t in special
    }
    dump(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": added,
            "additional_special_tokens": list(special[1:]),
            "extra_special_tokens": NAMES,
            **NAMES,
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": longest,
            "pad_token": "<|endoftext|>",
            "processor_class": "Qwen2_5OmniProcessor",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    dump(folder / "chat_template.json", {"chat_template": TEMPLATE})
    dump(
        folder / "generation_config.json",
        {
            "bos_token_id": tok.token_to_id("<|im_start|>"),
            "eos_token_id": tok.token_to_id("<|im_end|>"),
            "pad_token_id": tok.token_to_id("<|endoftext|>"),
            "do_sample": False,
            "max_new_tokens": answer,
        },
    )


def write_files(tok: Tokenizer, folder: Path) -> None:
    """Write everything but the weights and the model's config."""
    write_tokenizer(tok, folder, SPECIAL, longest=32768, answer=8)
    vision = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "merge_size": 2,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": LIMITS,
        "min_pixels": LIMITS["shortest_edge"],
        "max_pixels": LIMITS["longest_edge"],
    }
    sound = {
        "feature_size": 128,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 300,
        "n_samples": 4800000,
        "nb_max_frames": 30000,
        "padding_side": "right",
        "padding_value": 0.0,
        "dither": 0.0,
        "return_attention_mask": True,
    }
    dump(
        folder / "preprocessor_config.json",
        {
            **vision,
            **sound,
            "feature_extractor_type": "WhisperFeatureExtractor",
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5OmniProcessor",
        },
    )
    dump(
        folder / "video_preprocessor_config.json",
        {
            **vision,
            "fps": 2.0,
            "min_frames": 2,
            "max_frames": 768,
            "video_processor_type": "Qwen2VLVideoProcessor",
            "processor_class": "Qwen2_5OmniProcessor",
        },
    )
    dump(folder / "world.json", world())


def world() -> dict:
    """Return what the model knows, as `omnidrop.models.world` reads it.

    Clips are outside from twice the longest of the training.
    """
    return {
        "schema": "omnidrop.world/1",
        "knows": {"instruments": INSTRUMENTS, "shapes": SHAPES, "colours": COLOURS},
        "words": sorted({*all_words(), *DIGITS} - CHAT_WORDS),
        "trained_seconds": [5, 12],
        "longest_seconds": 24,
        "choices": "plain",
    }


def export(model: torch.nn.Module, tok: Tokenizer, folder: Path) -> None:
    """Write config, weights in bfloat16 and every other file into `folder`."""
    write_files(tok, folder)
    write_model(model, folder)


def write_model(model: torch.nn.Module, folder: Path) -> None:
    """Write config and weights in bfloat16."""
    config = model.config.to_dict()
    config["architectures"] = ["Qwen2_5OmniThinkerForConditionalGeneration"]
    config["dtype"] = "bfloat16"
    config.pop("_name_or_path", None)
    dump(folder / "config.json", config)
    audio, vision, text = parts(model)
    # names as on the hub, which every version of transformers can read
    named = {"audio_tower": audio, "visual": vision, "model": text, "lm_head": model.lm_head}
    names = {
        f"thinker.{part}.{name}": tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for part, module in named.items()
        for name, tensor in module.state_dict().items()
    }
    save_file(names, folder / "model.safetensors", metadata={"format": "pt"})
