"""Checkpoints of published size and layout that hold no data: real headers over sparse files.

Names and shapes are written down here from the published checkpoints, one tensor per expert, with
the shards of talker and vocoder. Such a folder takes a few MB of disk.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnidrop.models.qwen2_5_omni import tiny as qwen2_5
from omnidrop.models.qwen3_omni import tiny as qwen3
from omnidrop.models.video_salmonn2 import tiny as salmonn2

Named = Iterator[tuple[str, tuple[int, ...]]]

#: Bytes of a shard, about, as on the hub.
SHARD = 5 * 10**9


def linear(name: str, out: int, width: int, *, bias: bool = True) -> Named:
    yield f"{name}.weight", (out, width)
    if bias:
        yield f"{name}.bias", (out,)


def norm(name: str, width: int, *, bias: bool = True) -> Named:
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)


def decoder(
    prefix: str, layers: int, hidden: int, heads: int, kv_heads: int, vocab: int, *,
    inner: int = 0, experts: int = 0, tied: bool = False,
) -> Named:  # fmt: skip
    """Qwen2.5's decoder, or Qwen3's with experts, norms of queries and keys and no biases."""
    yield f"{prefix}model.embed_tokens.weight", (vocab, hidden)
    for layer in (f"{prefix}model.layers.{i}" for i in range(layers)):
        yield from norm(f"{layer}.input_layernorm", hidden, bias=False)
        yield from norm(f"{layer}.post_attention_layernorm", hidden, bias=False)
        for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            yield from linear(
                f"{layer}.self_attn.{part}_proj", 128 * count, hidden, bias=not experts
            )
        yield from linear(f"{layer}.self_attn.o_proj", hidden, 128 * heads, bias=False)
        if not experts:
            yield from mlp(f"{layer}.mlp", inner, hidden, bias=False)
            continue
        yield from norm(f"{layer}.self_attn.q_norm", 128, bias=False)
        yield from norm(f"{layer}.self_attn.k_norm", 128, bias=False)
        yield from linear(f"{layer}.mlp.gate", experts, hidden, bias=False)
        for expert in range(experts):
            yield from mlp(f"{layer}.mlp.experts.{expert}", inner, hidden, bias=False)
    yield from norm(f"{prefix}model.norm", hidden, bias=False)
    if not tied:
        yield from linear(f"{prefix}lm_head", vocab, hidden, bias=False)


def mlp(name: str, inner: int, hidden: int, *, bias: bool) -> Named:
    yield from linear(f"{name}.gate_proj", inner, hidden, bias=bias)
    yield from linear(f"{name}.up_proj", inner, hidden, bias=bias)
    yield from linear(f"{name}.down_proj", hidden, inner, bias=bias)


def windowed_vision(prefix: str, output: int, *, joined: bool) -> Named:
    """Qwen2.5's vision encoder; queries, keys and values in one matrix, or in three."""
    yield f"{prefix}patch_embed.proj.weight", (1280, 3, 2, 14, 14)
    for block in (f"{prefix}blocks.{i}" for i in range(32)):
        yield from norm(f"{block}.norm1", 1280, bias=False)
        yield from norm(f"{block}.norm2", 1280, bias=False)
        for part in ("qkv",) if joined else ("q", "k", "v"):
            yield from linear(f"{block}.attn.{part}", 3840 if joined else 1280, 1280)
        yield from linear(f"{block}.attn.proj", 1280, 1280)
        yield from mlp(f"{block}.mlp", 3420, 1280, bias=True)
    yield from norm(f"{prefix}merger.ln_q", 1280, bias=False)
    yield from linear(f"{prefix}merger.mlp.0", 5120, 5120)
    yield from linear(f"{prefix}merger.mlp.2", output, 5120)


def whisper_layers(prefix: str) -> Named:
    for layer in (f"{prefix}layers.{i}" for i in range(32)):
        for part in ("q", "v", "out"):
            yield from linear(f"{layer}.self_attn.{part}_proj", 1280, 1280)
        yield from linear(f"{layer}.self_attn.k_proj", 1280, 1280, bias=False)
        yield from norm(f"{layer}.self_attn_layer_norm", 1280)
        yield from linear(f"{layer}.fc1", 5120, 1280)
        yield from linear(f"{layer}.fc2", 1280, 5120)
        yield from norm(f"{layer}.final_layer_norm", 1280)


def whisper_stem(prefix: str) -> Named:
    for name, width in (("conv1", 128), ("conv2", 1280)):
        yield f"{prefix}{name}.weight", (1280, width, 3)
        yield f"{prefix}{name}.bias", (1280,)


def qwen2_5_thinker(
    layers: int, hidden: int, heads: int, kv_heads: int, inner: int, vocab: int
) -> Named:
    yield from decoder("thinker.", layers, hidden, heads, kv_heads, vocab, inner=inner)
    yield from windowed_vision("thinker.visual.", hidden, joined=False)
    audio = "thinker.audio_tower."
    yield from whisper_stem(audio)
    yield from whisper_layers(audio)
    yield from norm(f"{audio}ln_post", 1280)
    yield from linear(f"{audio}proj", hidden, 1280)
    yield f"{audio}audio_bos_eos_token.weight", (2, hidden)


def qwen3_thinker() -> Named:
    yield from decoder("thinker.", 48, 2048, 32, 4, 152064, inner=768, experts=128)
    vision = "thinker.visual."
    yield f"{vision}patch_embed.proj.weight", (1152, 3, 2, 16, 16)
    yield f"{vision}patch_embed.proj.bias", (1152,)
    yield f"{vision}pos_embed.weight", (2304, 1152)
    for block in (f"{vision}blocks.{i}" for i in range(27)):
        yield from norm(f"{block}.norm1", 1152)
        yield from norm(f"{block}.norm2", 1152)
        yield from linear(f"{block}.attn.qkv", 3456, 1152)
        yield from linear(f"{block}.attn.proj", 1152, 1152)
        yield from linear(f"{block}.mlp.linear_fc1", 4304, 1152)
        yield from linear(f"{block}.mlp.linear_fc2", 1152, 4304)
    for merger, width in (("merger", 1152), *((f"merger_list.{i}", 4608) for i in range(3))):
        yield from norm(f"{vision}{merger}.ln_q", width)
        yield from linear(f"{vision}{merger}.mlp.0", 4608, 4608)
        yield from linear(f"{vision}{merger}.mlp.2", 2048, 4608)
    audio = "thinker.audio_tower."
    for name, width in (("conv2d1", 1), ("conv2d2", 480), ("conv2d3", 480)):
        yield f"{audio}{name}.weight", (480, width, 3, 3)
        yield f"{audio}{name}.bias", (480,)
    yield from linear(f"{audio}conv_out", 1280, 7680, bias=False)
    for name, shape in whisper_layers(audio):
        yield name, shape
        if name.endswith("k_proj.weight"):
            yield name.replace("weight", "bias"), (1280,)
    yield from norm(f"{audio}ln_post", 1280)
    yield from linear(f"{audio}proj1", 1280, 1280)
    yield from linear(f"{audio}proj2", 2048, 1280)


def salmonn2_model(
    layers: int, hidden: int, heads: int, kv_heads: int, inner: int, vocab: int, *, tied: bool
) -> Named:
    yield from decoder("", layers, hidden, heads, kv_heads, vocab, inner=inner, tied=tied)
    yield from windowed_vision("visual.", hidden, joined=True)
    yield from whisper_stem("audio.")
    yield from whisper_layers("audio.")
    yield "audio.embed_positions.weight", (1500, 1280)
    yield from norm("audio.layer_norm", 1280)
    former = "audio.qformer.bert."
    yield f"{former}embeddings.position_ids", (1, 512)
    yield from norm(f"{former}embeddings.LayerNorm", 3072)
    for layer in (f"{former}encoder.layer.{i}" for i in range(2)):
        for part, source in (("attention", 3072), ("crossattention", 1280)):
            yield from linear(f"{layer}.{part}.self.query", 3072, 3072)
            yield from linear(f"{layer}.{part}.self.key", 3072, source)
            yield from linear(f"{layer}.{part}.self.value", 3072, source)
            yield from linear(f"{layer}.{part}.output.dense", 3072, 3072)
            yield from norm(f"{layer}.{part}.output.LayerNorm", 3072)
        yield from linear(f"{layer}.intermediate_query.dense", 12288, 3072)
        yield from linear(f"{layer}.output_query.dense", 3072, 12288)
        yield from norm(f"{layer}.output_query.LayerNorm", 3072)
    yield "audio.q_tokens", (1, 1, 3072)
    yield from linear("audio.audio_proj", hidden, 3072)


def speaking(prefixes: tuple[str, str]) -> Named:
    """Some of what speaks: a talker's tables and a vocoder's layers, 2.5 GB."""
    talker, vocoder = prefixes
    yield f"{talker}.model.embed_tokens.weight", (8448, 3584)
    for i in range(24):
        yield from mlp(f"{talker}.model.layers.{i}.mlp", 18944, 896, bias=False)
        yield f"{vocoder}.layers.{i}.weight", (1024, 1024)


def write_sparse(folder: Path, *parts: Named) -> int:
    """Write shards of bfloat16 zeros that take no disk, and their index; return the parameters.

    A part begins a new shard, as talker and vocoder do on the hub.
    """
    files: list[list[tuple[str, tuple[int, ...]]]] = []
    for part in parts:
        files.append([])
        room = SHARD
        for name, shape in part:
            if room <= 0:
                files.append([])
                room = SHARD
            files[-1].append((name, shape))
            room -= 2 * math.prod(shape)
    index: dict[str, str] = {}
    total = 0
    for number, tensors in enumerate(files, 1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        total += _write(folder / file, tensors)
        index |= dict.fromkeys((name for name, _ in tensors), file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 2 * total}, "weight_map": index})
    )
    return total


def _write(path: Path, tensors: list[tuple[str, tuple[int, ...]]]) -> int:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in tensors:
        end = at + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return at // 2


def qwen2_5_omni(folder: Path, size: str) -> Path:
    """Qwen2.5-Omni-3B or -7B as on the hub."""
    qwen2_5.hub_layout(folder, dtype=_half())  # tokenizer and settings
    text = (
        {"3b": (36, 2048, 16, 2, 11008, 151936), "7b": (28, 3584, 28, 4, 18944, 152064)}
    )[size]  # fmt: skip
    _clear(folder)
    write_sparse(folder, qwen2_5_thinker(*text), speaking(("talker", "token2wav")))
    thinker: dict[str, Any] = _config(folder)["thinker_config"]
    thinker["text_config"] |= _text(text) | {"head_dim": 128}
    thinker["text_config"]["rope_scaling"]["mrope_section"] = [16, 24, 24]
    thinker["vision_config"] |= _vision(text[1])
    thinker["audio_config"] |= _audio(text[1])
    return _save(folder, _config(folder) | {"thinker_config": thinker})


def qwen3_omni(folder: Path) -> Path:
    """Qwen3-Omni-30B-A3B-Instruct as on the hub."""
    qwen3.hub_layout(folder, dtype=_half())
    _clear(folder)
    write_sparse(folder, qwen3_thinker(), speaking(("talker", "code2wav")))
    thinker: dict[str, Any] = _config(folder)["thinker_config"]
    thinker["text_config"] |= _text((48, 2048, 32, 4, 768, 152064)) | {
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    }  # fmt: skip
    thinker["text_config"]["rope_scaling"]["mrope_section"] = [24, 20, 20]
    thinker["vision_config"] |= {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
        "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24],
        "out_hidden_size": 2048,
    }  # fmt: skip
    thinker["audio_config"] |= _audio(2048) | {"downsample_hidden_size": 480}
    return _save(folder, _config(folder) | {"thinker_config": thinker})


def video_salmonn2(folder: Path, size: str) -> Path:
    """The video-SALMONN 2+ of 3B or 7B as on the hub."""
    salmonn2.tiny_checkpoint(folder, dtype=_half())
    text = (
        {"3b": (36, 2048, 16, 2, 11008, 151936), "7b": (28, 3584, 28, 4, 18944, 152064)}
    )[size]  # fmt: skip
    tied = size == "3b"
    _clear(folder)
    write_sparse(folder, salmonn2_model(*text, tied=tied))
    config = _config(folder) | _text(text) | {"tie_word_embeddings": tied}
    config["rope_scaling"]["mrope_section"] = [16, 24, 24]
    config["vision_config"] |= _vision(text[1])
    audio = _audio(text[1]) | {"max_source_positions": 1500}
    del audio["output_dim"]
    config["audio_config"] |= audio | {"second_per_window": 0.5, "second_stride": 0.5}
    config["audio_config"]["qformer_config"] |= {
        "hidden_size": 3072, "num_attention_heads": 12, "intermediate_size": 12288,
        "encoder_width": 1280, "out_hidden_size": text[1],
    }  # fmt: skip
    return _save(folder, config)


def _half() -> Any:
    import torch

    return torch.bfloat16


def _clear(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def _save(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _text(sizes: tuple[int, ...]) -> dict[str, Any]:
    layers, hidden, heads, kv_heads, inner, vocab = sizes
    return {
        "num_hidden_layers": layers, "max_window_layers": layers, "hidden_size": hidden,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": inner,
        "vocab_size": vocab,
    }  # fmt: skip


def _vision(output: int) -> dict[str, Any]:
    return {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
        "fullatt_block_indexes": [7, 15, 23, 31], "out_hidden_size": output,
    }  # fmt: skip


def _audio(output: int) -> dict[str, Any]:
    return {
        "d_model": 1280, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
        "encoder_layers": 32, "num_hidden_layers": 32, "output_dim": output,
    }  # fmt: skip
