"""The lab model's architecture: the thinker of Qwen2.5-Omni around a pretrained language model."""

from __future__ import annotations

from pathlib import Path

import torch
from recipe.labels import Speaker
from recipe.shape import parts
from recipe.vocab import concept_vectors
from safetensors.torch import load_file
from torch import nn
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from .source import LanguageModel

#: Width of what the demo model's encoders put out.
SPOKEN = 192
#: A weight of the audio encoder's class that its forward pass does not use.
UNREAD = "audio_bos_eos_token.weight"


def build_config(language: LanguageModel, demo: Path) -> Qwen2_5OmniThinkerConfig:
    """Return the config: the demo model's encoders and the language model's sizes."""
    config = Qwen2_5OmniThinkerConfig.from_pretrained(demo).to_dict()
    at = language.tokenizer.token_to_id
    config["audio_config"]["output_dim"] = language.width
    config["vision_config"]["out_hidden_size"] = language.width
    config["text_config"] |= {
        "vocab_size": language.tokenizer.get_vocab_size(),
        "hidden_size": language.width,
        "intermediate_size": language.inner,
        "num_hidden_layers": language.layers,
        "num_attention_heads": language.heads,
        "num_key_value_heads": language.kv_heads,
        "max_position_embeddings": 8192,
        "max_window_layers": language.layers,
        "layer_types": ["full_attention"] * language.layers,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": language.theta,
            "mrope_section": [8, 12, 12],
        },
        "rms_norm_eps": language.eps,
        "bos_token_id": at("<|im_start|>"),
        "eos_token_id": at("<|im_end|>"),
        "pad_token_id": at("<|endoftext|>"),
    }
    config |= {
        "audio_token_index": at("<|AUDIO|>"),
        "image_token_index": at("<|IMAGE|>"),
        "video_token_index": at("<|VIDEO|>"),
        "audio_start_token_id": at("<|audio_bos|>"),
        "audio_end_token_id": at("<|audio_eos|>"),
        "vision_start_token_id": at("<|vision_bos|>"),
        "vision_end_token_id": at("<|vision_eos|>"),
        "user_token_id": at("user"),
        "pad_token_id": at("<|endoftext|>"),
    }
    for name in ("_name_or_path", "dtype", "torch_dtype", "transformers_version"):
        config.pop(name, None)
    return Qwen2_5OmniThinkerConfig.from_dict(config)


def build_model(language: LanguageModel, demo: Path) -> nn.Module:
    """Return the thinker with the pretrained decoder; its encoders are untrained."""
    model = Qwen2_5OmniThinkerForConditionalGeneration(build_config(language, demo))
    parts(model).text.load_state_dict(language.tensors)
    model.lm_head.weight.data.copy_(language.tensors["embed_tokens.weight"])
    return model


def demo_weights(demo: Path) -> dict[str, torch.Tensor]:
    """Return the demo model's weights in float32, under the names of the thinker."""
    held = load_file(str(demo / "model.safetensors"))
    return {name.removeprefix("thinker."): weight.float() for name, weight in held.items()}


def set_encoders(model: nn.Module, demo: Path, projector: nn.Linear) -> None:
    """Load the demo model's encoders, with the projector folded into their last layers.

    The last layer of each is linear, and so is the projector: one matrix does both.
    """
    audio, vision, _ = parts(model)
    weights = demo_weights(demo)
    p, p0 = projector.weight.detach().float(), projector.bias.detach().float()
    for prefix, tower, last in (
        ("audio_tower.", audio, "proj"),
        ("visual.", vision, "merger.mlp.2"),
    ):
        own = {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}
        own[f"{last}.bias"] = p @ own[f"{last}.bias"] + p0
        own[f"{last}.weight"] = p @ own[f"{last}.weight"]
        if UNREAD in own:  # of another width, and no part of any result
            own[UNREAD] = torch.zeros(own[UNREAD].shape[0], len(p))
        tower.load_state_dict(own)


def word_projector(language: LanguageModel, ridge: float = 0.1) -> nn.Linear:
    """Return a projector that turns what the encoders say of a thing into the word's embedding.

    The demo model's encoders were taught one vector for each word of their world. The projector is
    the ridge regression from these vectors to the pretrained embeddings of the same words.
    """
    concepts = concept_vectors(SPOKEN)
    table = language.tensors["embed_tokens.weight"]
    given, wanted = [], []
    for word, vector in concepts.items():
        ids = language.tokenizer.encode(f" {word}", add_special_tokens=False).ids
        given.append(torch.from_numpy(vector))
        wanted.append(table[ids].mean(0))
    x, y = torch.stack(given), torch.stack(wanted)
    middle = y.mean(0)
    gram = x.T @ x + ridge * len(x) * torch.eye(SPOKEN) * x.pow(2).mean()
    weight = torch.linalg.solve(gram, x.T @ (y - middle))
    layer = nn.Linear(SPOKEN, language.width)
    layer.weight.data.copy_(weight.T)
    layer.bias.data.copy_(middle)
    return layer


def speaker() -> Speaker:
    """Return what turns labels into ideal outputs of the encoders."""
    return Speaker(concept_vectors(SPOKEN))
