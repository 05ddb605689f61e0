"""Makes thinkers of published shapes with random weights, and random features of any length."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.models.qwen2_5_omni.adapter import QwenOmniAdapter

ROOT = Path(__file__).resolve().parents[2]

#: The demo model, whose tokenizer and processor settings are used for every shape.
DEMO = ROOT / "samples" / "demo-model"

AUDIO_PER_SECOND = 25

#: Bytes of weights per file of a checkpoint, as on the hub.
SHARD = 5 * 10**9

#: Pixels of a frame as the published checkpoints bound them.
PUBLISHED_LIMITS = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28},
}

TOWERS = {
    "audio": {
        "encoder_layers": 32,
        "encoder_attention_heads": 20,
        "d_model": 1280,
        "encoder_ffn_dim": 5120,
    },
    "vision": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a thinker.

    Attributes
    ----------
    text : dict
        Fields of the text config.
    towers : dict of dict
        Fields of the audio and vision configs.
    paper : str
        Name of OmniDrop's preset for this model in its paper; "" if there is none.
    frame : (int, int)
        Patches of a frame, (height, width).
    tokens : tuple of int
        AV tokens to measure at.
    """

    text: dict[str, Any]
    towers: dict[str, dict[str, Any]] = field(default_factory=lambda: TOWERS)
    paper: str = ""
    frame: tuple[int, int] = (16, 32)  # 128 tokens: the family's least for video
    tokens: tuple[int, ...] = (10_000, 20_000, 40_000)

    @property
    def tokens_per_second(self) -> int:
        """AV tokens in a second of clip at 2 frames a second."""
        return self.frame[0] * self.frame[1] // 4 + AUDIO_PER_SECOND


def text_sizes(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int
) -> dict[str, Any]:
    """Fields of a text config; heads are 128 wide in the family."""
    dim = hidden // heads
    section = dim // 2 - 2 * (dim // 2 * 3 // 8)
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "max_window_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [section, dim // 2 * 3 // 8, dim // 2 * 3 // 8],
        },
    }


SHAPES = {
    "7b": Shape(text_sizes(3584, 18944, 28, 28, 4, 152064), paper="7B"),
    "3b": Shape(text_sizes(2048, 11008, 36, 16, 2, 151936), paper="3B"),
    "tiny": Shape(
        text_sizes(128, 256, 8, 4, 2, 2048),
        {
            "audio": {
                "encoder_layers": 2,
                "encoder_attention_heads": 2,
                "d_model": 64,
                "encoder_ffn_dim": 128,
            },
            "vision": {
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 2,
                "fullatt_block_indexes": [1],
            },
        },
        frame=(4, 8),
        tokens=(200, 400),
    ),
}


def config_of(shape: Shape) -> Qwen2_5OmniThinkerConfig:
    """Return the config of a thinker, with the demo tokenizer's ids."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    at = tokenizer.convert_tokens_to_ids
    hidden = shape.text["hidden_size"]
    return Qwen2_5OmniThinkerConfig(
        audio_config={
            **shape.towers["audio"],
            "num_mel_bins": 128,
            "n_window": 100,
            "max_source_positions": 1500,
            "output_dim": hidden,
        },
        vision_config={
            **shape.towers["vision"],
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 112,
            "out_hidden_size": hidden,
        },
        text_config=shape.text,
        audio_token_index=at("<|AUDIO|>"),
        image_token_index=at("<|IMAGE|>"),
        video_token_index=at("<|VIDEO|>"),
        audio_start_token_id=at("<|audio_bos|>"),
        audio_end_token_id=at("<|audio_eos|>"),
        vision_start_token_id=at("<|vision_bos|>"),
        vision_end_token_id=at("<|vision_eos|>"),
        user_token_id=at("user"),
        pad_token_id=at("<|endoftext|>"),
        position_id_per_seconds=25,
        seconds_per_chunk=2,
        tie_word_embeddings=False,
    )


def build(shape: Shape, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Return a thinker with random weights on the device.

    The weights' standard deviation keeps the norm of the states from layer to layer; with
    transformers' initialisation, all logits would be nearly equal.
    """
    torch.manual_seed(0)
    with torch.device(device):
        thinker = Qwen2_5OmniThinkerForConditionalGeneration._from_config(
            config_of(shape), dtype=dtype, attn_implementation="sdpa"
        )
        with torch.no_grad():
            for weight in thinker.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=weight[0].numel() ** -0.5)
    thinker.generation_config.eos_token_id = None
    return thinker.eval().requires_grad_(False)


def twin(thinker: Any) -> Any:
    """Return a second thinker with the same weights, so that its modules can stay unchanged."""
    same = {
        id(weight): torch.nn.Parameter(weight.detach(), requires_grad=False)
        for weight in thinker.parameters()
    }
    return copy.deepcopy(thinker, same)


def model_of(thinker: Any, name: str) -> Model:
    """Return OmniDrop's model of a thinker; no token ends its answers."""
    adapter = QwenOmniAdapter(thinker, AutoTokenizer.from_pretrained(DEMO), name=f"random {name}")
    adapter.stop_ids = frozenset()
    return Model(adapter)


def weight_bytes(thinker: Any) -> int:
    """Return the bytes of a thinker's weights."""
    return sum(weight.numel() * weight.element_size() for weight in thinker.parameters())


def write_checkpoint(folder: Path, shape: Shape, device: torch.device) -> int:
    """Write a random thinker in the hub's layout; return the bytes of its weights.

    bfloat16 in shards, keys under `thinker.`, the config nested, the published limits on frames,
    and the demo model's tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    thinker = build(shape, device)
    tied = hasattr(thinker.model, "language_model")
    state = {}
    for key, value in thinker.state_dict().items():
        if tied:
            key = key.replace("model.language_model.", "model.")
            for tower in ("audio_tower", "visual"):
                key = key.replace(f"model.{tower}.", f"{tower}.")
        state[f"thinker.{key}"] = value
    parts: list[dict[str, torch.Tensor]] = [{}]
    room = SHARD
    for key, value in state.items():
        size = value.numel() * value.element_size()
        if size > room and parts[-1]:
            parts.append({})
            room = SHARD
        parts[-1][key] = value
        room -= size
    where = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        save_file(
            {key: value.cpu().contiguous() for key, value in part.items()},
            folder / file,
            metadata={"format": "pt"},
        )
        where.update(dict.fromkeys(part, file))
    total = weight_bytes(thinker)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "model_type": "qwen2_5_omni",
        "architectures": ["Qwen2_5OmniModel"],
        "torch_dtype": "bfloat16",
        "thinker_config": thinker.config.to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    limits = json.loads((DEMO / "preprocessor_config.json").read_text()) | PUBLISHED_LIMITS
    (folder / "preprocessor_config.json").write_text(json.dumps(limits, indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copyfile(DEMO / name, folder / name)
    return total


def make_features(shape: Shape, tokens: int, device: torch.device) -> Features:
    """Return random patches and mel of a clip with about `tokens` AV tokens, on the host."""
    seconds = max(2, round(tokens / shape.tokens_per_second))
    height, width = shape.frame
    generator = torch.Generator(device).manual_seed(1)

    def noise(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device=device).cpu()

    return Features(
        patches=noise(seconds * height * width, 3 * 2 * 14 * 14),
        grid=(seconds, height, width),
        second_per_grid=1.0,
        mel=noise(128, 100 * seconds),
    )
