"""Writes tiny Qwen2.5-Omni checkpoints with random weights, so that tests download nothing.

The tokenizer is a real byte-level BPE with every special token of the family, the config sets every
special id, and the weights are scaled so that greedy answers do not repeat one token.

    tiny_thinker(folder)              as `save_pretrained` of the thinker writes it
    hub_layout(folder)                as the hub has it: old key names, shards, nested config,
                                      with the weights of talker and vocoder
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from omnidrop.models.tiny_weights import TinyTokenizer, randomise, write_shards

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|vision_pad|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
)


def _tokenizer() -> TinyTokenizer:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    return TinyTokenizer(SPECIALS, "Qwen2Tokenizer", PRETOKENIZE_REGEX)


def token_ids() -> dict[str, int]:
    """Ids of the special tokens: they follow the byte-level vocabulary."""
    return _tokenizer().ids()


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, vocab.json, merges.txt and tokenizer_config.json."""
    _tokenizer().write(folder)


def thinker_config(
    *, layers: int = 6, hidden: int = 64, fullatt: tuple[int, ...] = (1,), dtype: str = "float32"
) -> dict[str, Any]:
    """Config of a tiny thinker with the hub's names (rope_scaling, *_index, every special id)."""
    ids = token_ids()
    return {
        "model_type": "qwen2_5_omni_thinker",
        "architectures": ["Qwen2OmniNaViTThinkerForConditionalGeneration"],
        "audio_token_index": ids["<|AUDIO|>"],
        "image_token_index": ids["<|IMAGE|>"],
        "video_token_index": ids["<|VIDEO|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_end_token_id": ids["<|audio_eos|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_end_token_id": ids["<|vision_eos|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "user_token_id": 872,
        "ignore_index": -100,
        "position_id_per_seconds": 25,
        "seconds_per_chunk": 2,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "audio_config": {
            "model_type": "qwen2_5_omni_audio_encoder",
            "d_model": 32,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "encoder_layers": 3,
            "num_hidden_layers": 3,
            "num_mel_bins": 128,
            "n_window": 100,
            "max_source_positions": 1500,
            "output_dim": hidden,
        },
        "vision_config": {
            "model_type": "qwen2_5_omni_vision_encoder",
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "in_chans": 3,
            "in_channels": 3,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": list(fullatt),
            "out_hidden_size": hidden,
            "tokens_per_second": 25,
        },
        "text_config": {
            "model_type": "qwen2_5_omni_text",
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "max_window_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": hidden // 4,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "rope_scaling": {
                "mrope_section": [hidden // 8 - 2 * (hidden // 24), hidden // 24, hidden // 24],
                "rope_type": "default",
                "type": "default",
            },
            "sliding_window": 32768,
            "use_sliding_window": False,
            "vocab_size": len(ids) + min(ids.values()) + 6,
            "use_cache": True,
        },
    }


def _model(config: dict[str, Any], seed: int) -> Any:
    from transformers import (
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
    )

    model = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig.from_dict(config))
    randomise(model, seed)
    return model.eval()


def write_preprocessor(folder: Path, **changes: Any) -> None:
    """Write preprocessor_config.json with the reference's values; `changes` replace some."""
    values = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28},
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "feature_size": 128,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 300,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5OmniProcessor",
    }
    values.update(changes)
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=1))


def tiny_thinker(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    layers: int = 6,
    hidden: int = 64,
    fullatt: tuple[int, ...] = (1,),
    seed: int = 0,
) -> Path:
    """Write a tiny thinker as the installed transformers saves it, with tokenizer and settings.

    Parameters
    ----------
    folder : Path
        Created if missing.
    dtype : torch.dtype
        Dtype of the stored weights.
    layers, hidden : int
        Decoder layers and width (a multiple of 32); 4 heads, 2 key-value heads.
    fullatt : tuple of int
        Vision blocks (of 3) with attention over the whole frame.
    seed : int
        Seed of the weights.

    Returns
    -------
    Path
        `folder`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = str(dtype).removeprefix("torch.")
    model = _model(thinker_config(layers=layers, hidden=hidden, fullatt=fullatt, dtype=name), seed)
    model.to(dtype).save_pretrained(folder)
    write_tokenizer(folder)
    write_preprocessor(folder)
    _tokenizer().write_generation_config(folder)
    return folder


def hub_keys(model: Any) -> dict[str, torch.Tensor]:
    """Return a thinker's weights under the hub's key names."""
    new = hasattr(model.model, "language_model")
    state = {}
    for key, value in model.state_dict().items():
        if new:
            key = key.replace("model.language_model.", "model.")
            for tower in ("audio_tower", "visual"):
                key = key.replace(f"model.{tower}.", f"{tower}.")
        state[f"thinker.{key}"] = value.contiguous()
    return state


def hub_layout(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    layers: int = 6,
    hidden: int = 64,
    seed: int = 0,
    shards: int = 3,
) -> Path:
    """Write a tiny checkpoint in the exact layout of the hub; parameters as `tiny_thinker`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = str(dtype).removeprefix("torch.")
    config = thinker_config(layers=layers, hidden=hidden, dtype=name)
    state = hub_keys(_model(config, seed).to(dtype))
    for i in range(3):
        state[f"talker.model.layers.{i}.mlp.up_proj.weight"] = torch.ones(8, 8, dtype=dtype)
        state[f"token2wav.code2wav_dit_model.blocks.{i}.weight"] = torch.ones(8, dtype=dtype)
    write_shards(folder, state, shards)
    whole = {
        "model_type": "qwen2_5_omni",
        "architectures": ["Qwen2_5OmniModel"],
        "enable_audio_output": True,
        "enable_talker": True,
        "torch_dtype": name,
        "thinker_config": config,
        "talker_config": {
            "model_type": "qwen2_5_omni_talker",
            "hidden_size": 8,
            "num_hidden_layers": 3,
            "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default"},
        },
        "token2wav_config": {
            "model_type": "qwen2_5_omni_token2wav",
            "dit_config": {"model_type": "qwen2_5_omni_dit"},
            "bigvgan_config": {"model_type": "qwen2_5_omni_bigvgan"},
        },
    }
    (folder / "config.json").write_text(json.dumps(whole, indent=1))
    write_tokenizer(folder)
    write_preprocessor(folder)
    return folder
