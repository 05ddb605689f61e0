"""Writes tiny video-SALMONN 2+ checkpoints with random weights, so that tests download nothing.

The layout is the hub's: the decoder's sizes beside the other parts of the config, the encoders'
weights under `visual.` and `audio.`, the decoder's under `model.`. Audio comes in pieces of 3 s
with ten tokens a second, instead of 30 s with two.
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
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|audio_pad|>",
)


def _tokenizer() -> TinyTokenizer:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    return TinyTokenizer(SPECIALS, "Qwen2Tokenizer", PRETOKENIZE_REGEX)


def token_ids() -> dict[str, int]:
    """Ids of the special tokens: they follow the byte-level vocabulary."""
    return _tokenizer().ids()


def config(
    *, layers: int = 6, hidden: int = 64, tied: bool = False, dtype: str = "float32"
) -> dict[str, Any]:
    """Config of a tiny model with the hub's names and every special id."""
    ids = token_ids()
    return {
        "model_type": "qwen2_5_vl",
        "architectures": ["video_SALMONN2_plus"],
        "audio_token_id": ids["<|audio_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "max_window_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {
            "mrope_section": [hidden // 8 - 2 * (hidden // 24), hidden // 24, hidden // 24],
            "rope_type": "default",
            "type": "default",
        },
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": len(ids) + min(ids.values()) + 6,
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": 3,
            "hidden_act": "silu",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "in_channels": 3,
            "in_chans": 3,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "out_hidden_size": hidden,
            "tokens_per_second": 2,
        },
        "audio_config": {
            "model_type": "whisper",
            "num_mel_bins": 128,
            "d_model": 32,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "activation_function": "gelu",
            "max_source_positions": 150,
            "second_per_window": 0.1,
            "second_stride": 0.1,
            "qformer_config": {
                "model_type": "bert",
                "hidden_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 96,
                "hidden_act": "gelu",
                "layer_norm_eps": 1e-12,
                "encoder_width": 32,
                "cross_attention_freq": 1,
                "query_length": 1,
                "out_hidden_size": hidden,
            },
        },
    }


def models(settings: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """Make the thinker of transformers and the audio encoder of a config, with random weights."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from omnidrop.models.video_salmonn2.encoders import AudioEncoder
    from omnidrop.models.video_salmonn2.sizes import audio_config

    parsed = Qwen2_5_VLConfig.from_dict(settings)
    thinker = Qwen2_5_VLForConditionalGeneration(parsed)
    audio = AudioEncoder(audio_config(parsed))
    randomise(thinker, seed)
    randomise(audio, seed + 1)
    return thinker.eval(), audio.eval()


def hub_keys(thinker: Any, audio: Any) -> dict[str, torch.Tensor]:
    """Return the weights under the hub's key names."""
    state = {f"audio.{key}": value.contiguous() for key, value in audio.state_dict().items()}
    for key, value in thinker.state_dict().items():
        if key == "lm_head.weight" and thinker.config.tie_word_embeddings:
            continue  # the embedding table
        own = key.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        state[own] = value.contiguous()
    return state


def write_preprocessor(folder: Path) -> None:
    """Write preprocessor_config.json as the hub has it: that of an image processor."""
    values = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=1))


def tiny_checkpoint(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    layers: int = 6,
    hidden: int = 64,
    tied: bool = False,
    seed: int = 0,
    shards: int = 2,
) -> Path:
    """Write a tiny checkpoint in the layout of the hub.

    Parameters
    ----------
    folder : Path
        Created if missing.
    dtype : torch.dtype
        Dtype of the stored weights.
    layers, hidden : int
        Decoder layers and width (a multiple of 32); 4 heads, 2 key-value heads.
    tied : bool
        Whether `lm_head` is the embedding table, as in the published 3B model.
    seed : int
        Seed of the weights.
    shards : int
        Files of the weights.

    Returns
    -------
    Path
        `folder`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = str(dtype).removeprefix("torch.")
    settings = config(layers=layers, hidden=hidden, tied=tied, dtype=name)
    thinker, audio = models(settings, seed)
    state = hub_keys(thinker.to(dtype), audio.to(dtype))
    # The published code stores this buffer with the weights.
    state["audio.qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
    write_shards(folder, state, shards)
    (folder / "config.json").write_text(json.dumps(settings, indent=1))
    _tokenizer().write(folder)
    write_preprocessor(folder)
    _tokenizer().write_generation_config(folder)
    return folder
