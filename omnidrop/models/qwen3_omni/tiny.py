"""Writes tiny Qwen3-Omni checkpoints with random weights, so that tests download nothing.

Everything that sets the family apart is in them: experts, norms of query and key heads, heads that
together are wider than the hidden state, interleaved rotary sections, three deep planes.

    tiny_thinker(folder)              as `save_pretrained` of the thinker writes it
    hub_layout(folder)                as the hub has it: one tensor per expert, shards, nested
                                      config, with the weights of talker and vocoder
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

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
    "<think>",
    "</think>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<tts_pad>",
    "<|audio_pad|>",
)

#: Kinds of published checkpoints.
Kind = Literal["instruct", "thinking", "captioner"]


def _tokenizer() -> TinyTokenizer:
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    plain = ("<think>", "</think>")
    return TinyTokenizer(SPECIALS, "Qwen2Tokenizer", PRETOKENIZE_REGEX, plain)


def token_ids() -> dict[str, int]:
    """Ids of the special tokens: they follow the byte-level vocabulary."""
    return _tokenizer().ids()


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, vocab.json, merges.txt and tokenizer_config.json."""
    _tokenizer().write(folder)


def thinker_config(
    *, layers: int = 6, hidden: int = 64, experts: int = 4, dtype: str = "float32"
) -> dict[str, Any]:
    """Config of a tiny thinker with the hub's names and every special id."""
    ids = token_ids()
    return {
        "model_type": "qwen3_omni_moe_thinker",
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "audio_token_id": ids["<|audio_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "audio_start_token_id": ids["<|audio_start|>"],
        "audio_end_token_id": ids["<|audio_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "user_token_id": 872,
        "position_id_per_seconds": 13,
        "seconds_per_chunk": 2,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "dtype": dtype,
        "audio_config": {
            "model_type": "qwen3_omni_moe_audio_encoder",
            "d_model": 32,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "encoder_layers": 3,
            "num_hidden_layers": 3,
            "num_mel_bins": 128,
            "n_window": 50,
            "n_window_infer": 800,
            "conv_chunksize": 500,
            "downsample_hidden_size": 8,
            "max_source_positions": 1500,
            "output_dim": hidden,
        },
        "vision_config": {
            "model_type": "qwen3_omni_moe_vision_encoder",
            "depth": 4,
            "hidden_size": 32,
            "hidden_act": "gelu_pytorch_tanh",
            "intermediate_size": 48,
            "num_heads": 4,
            "in_channels": 3,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1, 2],
            "out_hidden_size": hidden,
        },
        "text_config": {
            "model_type": "qwen3_omni_moe_text",
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": hidden // 2,
            "hidden_act": "silu",
            "num_experts": experts,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": hidden // 2,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "attention_bias": False,
            "max_position_embeddings": 65536,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "rope_scaling": {
                "interleaved": True,
                "mrope_interleaved": True,
                "mrope_section": [hidden // 4 - 2 * (hidden // 12), hidden // 12, hidden // 12],
                "rope_type": "default",
                "type": "default",
            },
            "vocab_size": len(ids) + min(ids.values()) + 6,
            "use_cache": True,
        },
    }


def _model(config: dict[str, Any], seed: int) -> Any:
    from transformers import Qwen3OmniMoeThinkerForConditionalGeneration
    from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
        Qwen3OmniMoeThinkerConfig,
    )

    parsed = Qwen3OmniMoeThinkerConfig.from_dict(config)
    model = Qwen3OmniMoeThinkerForConditionalGeneration(parsed)
    randomise(model, seed)
    return model.eval()


def write_preprocessor(folder: Path) -> None:
    """Write preprocessor_config.json with the published values."""
    values = {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "feature_size": 128,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 30,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3OmniMoeProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=1))


def _write_settings(folder: Path, kind: Kind) -> None:
    """Write tokenizer, preprocessor, generation settings, and the end of the chat template."""
    _tokenizer().write(folder)
    write_preprocessor(folder)
    _tokenizer().write_generation_config(folder)
    opening = "<think>\\n" if kind == "thinking" else ""
    (folder / "chat_template.json").write_text(
        json.dumps(
            {
                "chat_template": "{%- if add_generation_prompt %}"
                "{{- '<|im_start|>assistant\\n" + opening + "' }}{%- endif %}"
            }
        )
    )


def tiny_thinker(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    layers: int = 6,
    hidden: int = 64,
    experts: int = 4,
    kind: Kind = "instruct",
    seed: int = 3,
) -> Path:
    """Write a tiny thinker as the installed transformers saves it, with tokenizer and settings.

    Parameters
    ----------
    folder : Path
        Created if missing.
    dtype : torch.dtype
        Dtype of the stored weights.
    layers, hidden : int
        Decoder layers and width (a multiple of 16); 4 heads, 2 key-value heads.
    experts : int
        Experts per layer, two of them active.
    kind : {"instruct", "thinking", "captioner"}
        A thinking model's answers start inside `<think>`.
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
    config = thinker_config(layers=layers, hidden=hidden, experts=experts, dtype=name)
    _model(config, seed).to(dtype).save_pretrained(folder)
    _write_settings(folder, kind)
    return folder


def hub_keys(model: Any) -> dict[str, torch.Tensor]:
    """Return a thinker's weights under the hub's key names, one tensor per expert."""
    new = hasattr(model.model, "language_model")
    state: dict[str, torch.Tensor] = {}
    for key, value in model.state_dict().items():
        if new:
            key = key.replace("model.language_model.", "model.")
            for tower in ("audio_tower", "visual"):
                key = key.replace(f"model.{tower}.", f"{tower}.")
        before, experts, what = f"thinker.{key}".partition(".mlp.experts.")
        if not experts:
            state[before] = value.contiguous()
            continue
        for number, expert in enumerate(value):
            at = f"{before}.mlp.experts.{number}"
            if what == "down_proj":
                state[f"{at}.down_proj.weight"] = expert.contiguous()
            else:
                gate, up = expert.chunk(2)
                state[f"{at}.gate_proj.weight"] = gate.contiguous()
                state[f"{at}.up_proj.weight"] = up.contiguous()
    return state


def hub_layout(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    layers: int = 6,
    hidden: int = 64,
    experts: int = 4,
    kind: Kind = "instruct",
    seed: int = 3,
    shards: int = 3,
) -> Path:
    """Write a tiny checkpoint in the exact layout of the hub; parameters as `tiny_thinker`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = str(dtype).removeprefix("torch.")
    config = thinker_config(layers=layers, hidden=hidden, experts=experts, dtype=name)
    state = hub_keys(_model(config, seed).to(dtype))
    whole: dict[str, Any] = {
        "model_type": "qwen3_omni_moe",
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "enable_audio_output": kind == "instruct",
        "im_start_token_id": token_ids()["<|im_start|>"],
        "im_end_token_id": token_ids()["<|im_end|>"],
        "dtype": name,
        "thinker_config": config,
    }
    if kind == "instruct":  # the others do not speak
        for i in range(3):
            state[f"talker.model.layers.{i}.mlp.experts.0.up_proj.weight"] = torch.ones(8, 8)
            state[f"code2wav.decoder.{i}.block.weight"] = torch.ones(8)
        whole["talker_config"] = {"model_type": "qwen3_omni_moe_talker", "num_code_groups": 16}
        whole["code2wav_config"] = {"model_type": "qwen3_omni_moe_code2wav"}
    write_shards(folder, state, shards)
    (folder / "config.json").write_text(json.dumps(whole, indent=1))
    _write_settings(folder, kind)
    return folder
