"""Qwen2.5-Omni's thinker behind the `Adapter`: the library's own layers, our own order of calls.

Both module layouts of the library are known: the towers and the text model hang directly under
the thinker (transformers 5.17) or all under its `model` (5.23).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as reference

from omnidrop.clip.features import AudioSpec, VideoSpec
from omnidrop.errors import ModelError
from omnidrop.models import kernels
from omnidrop.models.adapter import (
    Adapter,
    AudioShape,
    LayerCache,
    ModelInfo,
    Rotary,
    TextShape,
    VisionShape,
)
from omnidrop.models.attention import attend, attend_from_few, causal_mask, rotate
from omnidrop.models.kernels import Choice
from omnidrop.models.qwen2_5_towers import AudioTower, VisionTower
from omnidrop.prompt import Layout

FAMILY = "Qwen2.5-Omni"
THINKER = reference.Qwen2_5OmniThinkerForConditionalGeneration

#: Rows that go through a norm or an MLP together, at most.
ROWS = 2048

#: Rows that attend together over keys that other rows left, at most, without repeating keys.
FEW_ROWS = 256

#: Layout field → special token of the tokenizer.
SPECIALS = {
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "video": "<|VIDEO|>",
    "audio": "<|AUDIO|>",
    "vision_bos": "<|vision_bos|>",
    "vision_eos": "<|vision_eos|>",
    "audio_bos": "<|audio_bos|>",
    "audio_eos": "<|audio_eos|>",
}


class Codec:
    """Byte-level BPE of a checkpoint.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Its backend is used directly, and from then on by this object alone.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        # Special tokens spelled out in a text are text; the ids of real ones are put by `prompt`.
        self._backend.encode_special_tokens = True

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return ids and character offsets; see `TextEncoder.encode`."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text without special tokens."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def id(self, token: str) -> int | None:
        """Return the id of a token, or None if there is no such token."""
        return self._backend.token_to_id(token)


class QwenOmniAdapter(Adapter):
    """Adapter over a loaded thinker.

    Parameters
    ----------
    thinker : Module
        A `Qwen2_5OmniThinkerForConditionalGeneration` on one device.
    tokenizer : PreTrainedTokenizerFast
    name : str
        For `ModelInfo`.
    folder : Path, optional
        Checkpoint folder, for its own limits on frames and sound.
    demo : bool
    quantization : str or None
    parameters : int, optional
        Parameter count before quantisation; counted if not given.

    Raises
    ------
    ModelError
        If the tokenizer and the config do not fit each other.
    """

    def __init__(
        self,
        thinker: Any,
        tokenizer: Any,
        *,
        name: str,
        folder: Path | None = None,
        demo: bool = False,
        quantization: str | None = None,
        parameters: int | None = None,
    ) -> None:
        thinker.eval().requires_grad_(False)
        # 5.23 keeps all three parts under `model`, the text model as `language_model`.
        holder = thinker.model if hasattr(thinker.model, "language_model") else thinker
        self._thinker = thinker
        self._text = holder.language_model if holder is thinker.model else thinker.model
        self._layers = self._text.layers
        if any(layer.self_attn.sliding_window for layer in self._layers):
            raise ModelError(
                f"{name} attends through a sliding window, which OmniDrop does not run.",
                hint="Use a checkpoint of the Qwen2.5-Omni family as published.",
            )
        self._vision = VisionTower(holder.visual)
        self._audio = AudioTower(holder.audio_tower)
        self.folder, self.fingerprint = folder, _fingerprint(holder)
        weight = self._text.embed_tokens.weight
        self.device, self.dtype = weight.device, weight.dtype
        self._implementation = self._text.config._attn_implementation
        self._silu = self._text.config.hidden_act == "silu"
        self.scaling = float(self._layers[0].self_attn.scaling)
        self.text = Codec(tokenizer)
        self.layout = _layout(self.text, thinker.config, name)
        self.stop_ids = _stop_ids(thinker, self.layout)
        self.video_spec, self.audio_spec = media_specs(folder, thinker.config)
        self.info = ModelInfo(
            name=name,
            family=FAMILY,
            demo=demo,
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            attention=str(self._implementation),
            quantization=quantization,
            text=_text_shape(thinker.config.text_config),
            vision=_vision_shape(thinker.config.vision_config),
            audio=_audio_shape(thinker.config.audio_config),
            parameters=parameters or sum(p.numel() for p in thinker.parameters()),
        )

    def vision_tower(
        self, patches: torch.Tensor, grid: tuple[int, int, int], *, attention: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._vision(patches, grid, attention=attention)

    def audio_tower(
        self, mel: torch.Tensor, *, attention: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._audio(mel, attention=attention)

    @torch.inference_mode()
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._text.embed_tokens(ids.to(self.device))

    @torch.inference_mode()
    def rotary(self, positions: torch.Tensor) -> Rotary:
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = self._text.rotary_emb(like, positions.to(self.device)[:, None])
        return cos, sin

    @torch.inference_mode()
    def layer(
        self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache
    ) -> torch.Tensor:
        layer = self._layers[index]
        hidden = hidden + self._attend(index, hidden, rotary, cache)
        # Row by row the same, but the MLP's wide states are never there for all rows at once.
        for rows in _slabs(hidden):
            rows += self._mlp(layer.mlp, layer.post_attention_layernorm(rows))
        return hidden

    def _attend(
        self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache
    ) -> torch.Tensor:
        """Return what a layer's attention adds to the rows."""
        layer, attention = self._layers[index], self._layers[index].self_attn
        past = cache.length(index)
        normed = _normed(layer.input_layernorm, hidden)
        queries = _rotated(attention.q_proj(normed), attention.head_dim, rotary)
        keys, values = self._remember(index, normed, rotary, cache)
        del normed
        filled = cache.filled(index)
        if filled is not None:
            attended = kernels.over_filled(queries, keys, values, filled, scaling=self.scaling)
            attended = attended.flatten(2)
        else:
            attended = self._over(attention, queries, keys, values, past, cache.even)
        del queries, keys, values
        return attention.o_proj(attended)

    def _over(
        self,
        attention: Any,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        past: int,
        shared: bool,
    ) -> torch.Tensor:
        """Attend from new rows over `past` keys and their own."""
        rows = queries.shape[2]
        if past and rows > 1 and self._implementation == "sdpa":
            choice = kernels.choose(queries.device, rows, past + rows, shared=shared)
            if choice is Choice.PLANLESS:
                out = kernels.planless(queries, keys, values, causal=True, scaling=self.scaling)
                return out.flatten(2)
        mask = causal_mask(self._implementation, rows, past, queries)
        if mask is not None and self._implementation == "sdpa" and rows <= FEW_ROWS:
            return attend_from_few(queries, keys, values, mask, self.scaling)
        return attend(attention, queries, keys, values, mask, shared=shared)

    def _mlp(self, mlp: Any, states: torch.Tensor) -> torch.Tensor:
        """Return what `mlp` gives, with one wide tensor less."""
        if not self._silu:
            return mlp(states)
        wide = torch.nn.functional.silu(mlp.gate_proj(states), inplace=True)
        wide *= mlp.up_proj(states)
        return mlp.down_proj(wide)

    @torch.inference_mode()
    def remember(self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache) -> None:
        normed = _normed(self._layers[index].input_layernorm, hidden)
        self._remember(index, normed, rotary, cache)

    def _remember(
        self, index: int, normed: torch.Tensor, rotary: Rotary, cache: LayerCache
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put keys and values of normed rows into the cache; return all it holds of the layer."""
        attention = self._layers[index].self_attn
        keys = _rotated(attention.k_proj(normed), attention.head_dim, rotary)
        values = _heads(attention.v_proj(normed), attention.head_dim)
        return cache.update(keys, values, index)

    @torch.inference_mode()
    def queries(self, index: int, hidden: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        layer = self._layers[index]
        states = layer.self_attn.q_proj(layer.input_layernorm(hidden))
        return _rotated(states, layer.self_attn.head_dim, rotary)[0]

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._thinker.lm_head(self._text.norm(hidden))[0, -1].float()


def _slabs(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return rows.chunk(max(1, -(-rows.shape[1] // ROWS)), 1)


def _normed(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return what a norm makes of the rows; its float32 states are never there for all at once."""
    if hidden.shape[1] <= ROWS:
        return norm(hidden)
    normed = torch.empty_like(hidden)
    for rows, into in zip(_slabs(hidden), _slabs(normed), strict=True):
        into.copy_(norm(rows))
    return normed


def _heads(states: torch.Tensor, width: int) -> torch.Tensor:
    return states.unflatten(2, (-1, width)).transpose(1, 2)


def _rotated(states: torch.Tensor, width: int, rotary: Rotary) -> torch.Tensor:
    """Split (1, n, heads · width) into heads and turn them, (1, heads, n, width)."""
    cos, sin = rotary
    return rotate(_heads(states, width), cos[:, None], sin[:, None])


def _layout(codec: Codec, config: Any, name: str) -> Layout:
    ids = {field: codec.id(token) for field, token in SPECIALS.items()}
    missing = [SPECIALS[field] for field, i in ids.items() if i is None]
    if missing:
        raise ModelError(
            f"The tokenizer of {name} has no {' '.join(missing)}.",
            hint="Use the tokenizer files of the checkpoint itself.",
        )
    told = {"video": config.video_token_id, "audio": config.audio_token_id}
    for field, i in told.items():
        if ids[field] != i:
            raise ModelError(
                f"The tokenizer of {name} gives {SPECIALS[field]} the id {ids[field]}, "
                f"its config {i}.",
                hint="Use the tokenizer files of the checkpoint itself.",
            )
    known: dict[str, Any] = {field: i for field, i in ids.items() if i is not None}
    return Layout(
        **known,
        positions_per_second=int(config.position_id_per_seconds),
        seconds_per_chunk=float(config.seconds_per_chunk),
        merge=int(config.vision_config.spatial_merge_size),
    )


def _stop_ids(thinker: Any, layout: Layout) -> frozenset[int]:
    settings = getattr(thinker, "generation_config", None)
    told = getattr(settings, "eos_token_id", None)
    ends = told if isinstance(told, (list, tuple)) else [] if told is None else [told]
    return frozenset({layout.im_end, *map(int, ends)})


def _fingerprint(holder: Any) -> str:
    """Return a hash of the towers' last projections, the same in whatever dtype they are loaded."""
    digest = hashlib.sha256()
    for weight in (holder.audio_tower.proj.weight, holder.visual.merger.mlp[-1].weight):
        digest.update(str(tuple(weight.shape)).encode())
        rows = weight.detach()[:4].cpu().to(torch.float16).to(torch.bfloat16)
        digest.update(rows.contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _text_shape(config: Any) -> TextShape:
    heads = int(config.num_attention_heads)
    return TextShape(
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        heads=heads,
        kv_heads=int(config.num_key_value_heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocab=int(config.vocab_size),
    )


def _vision_shape(config: Any) -> VisionShape:
    return VisionShape(
        layers=int(config.depth),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        heads=int(config.num_heads),
        patch=int(config.patch_size),
        temporal_patch=int(config.temporal_patch_size),
        merge=int(config.spatial_merge_size),
        window=int(config.window_size),
        full_attention=tuple(int(i) for i in config.fullatt_block_indexes),
        output=int(config.out_hidden_size),
    )


def _audio_shape(config: Any) -> AudioShape:
    return AudioShape(
        layers=int(config.encoder_layers),
        hidden=int(config.d_model),
        intermediate=int(config.encoder_ffn_dim),
        heads=int(config.encoder_attention_heads),
        mel_bins=int(config.num_mel_bins),
        window=2 * int(config.n_window),
        output=int(config.output_dim),
    )


def media_specs(folder: Path | None, config: Any) -> tuple[VideoSpec, AudioSpec]:
    """What the towers ask of frames and sound.

    Limits on pixels come from a file about *video*: `video_preprocessor_config.json`, or the
    `video_processor` part of `processor_config.json`, or a `preprocessor_config.json` that does
    not describe an image processor. The hub's own `preprocessor_config.json` does, and its limits
    are for pictures: the reference replaces them by 128·28² and 768·28² for video. Limits above
    those, wherever they are found, are taken for such limits, too.

    Parameters
    ----------
    folder : Path or None
    config : Qwen2_5OmniThinkerConfig

    Returns
    -------
    VideoSpec, AudioSpec
    """
    vision, files = config.vision_config, _preprocessors(folder)
    video, general = files["video"], files["general"]
    both = {**general, **video}
    size = video.get("size") or {}
    defaults = VideoSpec()
    lower = size.get("shortest_edge") or video.get("min_pixels") or defaults.min_pixels
    upper = size.get("longest_edge") or video.get("max_pixels") or defaults.max_pixels
    if int(upper) > defaults.max_pixels:
        lower, upper = defaults.min_pixels, defaults.max_pixels
    frames = VideoSpec(
        patch_size=int(vision.patch_size),
        temporal_patch_size=int(vision.temporal_patch_size),
        merge_size=int(vision.spatial_merge_size),
        min_pixels=int(lower),
        max_pixels=int(upper),
        mean=tuple(both.get("image_mean") or defaults.mean),
        std=tuple(both.get("image_std") or defaults.std),
    )
    sound = AudioSpec()
    sound = AudioSpec(
        sampling_rate=int(general.get("sampling_rate") or sound.sampling_rate),
        n_fft=int(general.get("n_fft") or sound.n_fft),
        hop=int(general.get("hop_length") or sound.hop),
        n_mels=int(config.audio_config.num_mel_bins),
        padded_seconds=int(general.get("chunk_length") or sound.padded_seconds),
    )
    return frames, sound


def _preprocessors(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Settings about video, and settings about anything, from a checkpoint's files."""
    if folder is None:
        return {"video": {}, "general": {}}
    whole = _json(folder / "processor_config.json")
    general = {
        **_json(folder / "preprocessor_config.json"),
        **(whole.get("feature_extractor") or {}),
    }
    video = _json(folder / "video_preprocessor_config.json") or whole.get("video_processor") or {}
    if not video and "image_processor_type" not in general:
        video = general
    return {"video": video, "general": general}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"This file cannot be read as JSON: {error}.", path=path) from error
    return value if isinstance(value, dict) else {}
