"""The demo model's architecture: the classes of Qwen2.5-Omni with small sizes."""

from __future__ import annotations

from typing import NamedTuple

from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

WIDTH, LAYERS = 192, 16


def build_config(tok: Tokenizer, layers: int = LAYERS) -> Qwen2_5OmniThinkerConfig:
    """Return the config of the thinker, with all special token ids set."""

    def at(name: str) -> int:
        return tok.token_to_id(name)

    return Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": 128,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "d_model": 128,
            "encoder_ffn_dim": 384,
            "n_window": 100,
            "output_dim": WIDTH,
            "max_source_positions": 1500,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
            "out_hidden_size": WIDTH,
        },
        text_config={
            "vocab_size": -(-tok.get_vocab_size() // 64) * 64,
            "hidden_size": WIDTH,
            "intermediate_size": 512,
            "num_hidden_layers": layers,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [8, 12, 12],
            },
            "rms_norm_eps": 1e-6,
            "bos_token_id": at("<|im_start|>"),
            "eos_token_id": at("<|im_end|>"),
            "pad_token_id": at("<|endoftext|>"),
        },
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


def build_model(tok: Tokenizer, layers: int = LAYERS) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """Return the model with random weights."""
    return Qwen2_5OmniThinkerForConditionalGeneration(build_config(tok, layers))


class Parts(NamedTuple):
    """The three networks of a thinker."""

    audio: nn.Module
    vision: nn.Module
    text: nn.Module


def parts(model: nn.Module) -> Parts:
    """Return the networks: in the thinker itself (transformers 5.17) or in its `model` (5.23)."""
    if hasattr(model.model, "language_model"):
        inner = model.model
        return Parts(inner.audio_tower, inner.visual, inner.language_model)
    return Parts(model.audio_tower, model.visual, model.model)
