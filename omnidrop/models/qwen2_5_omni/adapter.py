"""The `Adapter` of Qwen2.5-Omni's thinker: runs the weights of transformers' modules.

Both module layouts of transformers are supported: encoders and text model directly under the
thinker (transformers 5.17), or all under its `model` (5.23).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as reference

from omnidrop.errors import ModelError
from omnidrop.models import fused, kernels
from omnidrop.models.adapter import Adapter, Embeds, LayerCache, ModelInfo, Rotary
from omnidrop.models.attention import attend, attend_from_few, causal_mask
from omnidrop.models.codec import Codec
from omnidrop.models.kernels import Choice
from omnidrop.models.qwen2_5_omni.encoders import AudioTower, VisionTower
from omnidrop.models.qwen2_5_omni.sizes import NAME, media_specs, shapes
from omnidrop.models.qwen2_5_omni.template import template
from omnidrop.shapes import MLP_ROWS, MLP_ROWS_GPU

THINKER = reference.Qwen2_5OmniThinkerForConditionalGeneration

#: Up to this many new rows attend to cached keys without repeating the keys for each head.
FEW_ROWS = 256


class QwenOmniAdapter(Adapter):
    """Adapter of a loaded thinker.

    Parameters
    ----------
    thinker : Module
        A `Qwen2_5OmniThinkerForConditionalGeneration` on one device.
    tokenizer : PreTrainedTokenizerFast
    name : str
        Name in `ModelInfo`.
    folder : Path, optional
        The checkpoint's folder, for its limits on frames and audio.
    demo : bool
    quantization : str or None
    parameters : int, optional
        Parameter count before quantisation; counted if not given.

    Raises
    ------
    ModelError
        If the tokenizer does not match the config.
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
        parameters = parameters or sum(p.numel() for p in thinker.parameters())
        self._vision = VisionTower(holder.visual)
        self._audio = AudioTower(holder.audio_tower)
        self.folder, self.fingerprint = folder, _fingerprint(holder)
        weight = self._text.embed_tokens.weight
        self.device, self.dtype = weight.device, weight.dtype
        self._implementation = self._text.config._attn_implementation
        self._silu = self._text.config.hidden_act == "silu"
        self.scaling = float(self._layers[0].self_attn.scaling)
        self.text = Codec(tokenizer)
        self.template = template(self.text, thinker.config, name)
        self.stop_ids = _stop_ids(thinker, self.template.im_end)
        self.video_spec, self.audio_spec = media_specs(folder, thinker.config)
        sizes = shapes(thinker.config)
        self.info = ModelInfo(
            name=name,
            family=NAME,
            demo=demo,
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            attention=str(self._implementation),
            quantization=quantization,
            text=sizes.text,
            vision=sizes.vision,
            audio=sizes.audio,
            parameters=parameters,
        )

    def encode_video(
        self, patches: torch.Tensor, grid: tuple[int, int, int], *, attention: bool = False
    ) -> Embeds:
        embeds, received = self._vision(patches, grid, attention=attention)
        return Embeds((embeds,), received)

    def encode_audio(self, mel: torch.Tensor, *, attention: bool = False) -> Embeds:
        embeds, received = self._audio(mel, attention=attention)
        return Embeds((embeds,), received)

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
        # Chunked MLP: the same result, with the memory of its wide states bounded.
        for rows in _slabs(hidden):
            self._add_mlp(layer.mlp, rows, _normed(layer.post_attention_layernorm, rows))
        return hidden

    def _attend(
        self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache
    ) -> torch.Tensor:
        """Return the output of a layer's attention."""
        layer, attention = self._layers[index], self._layers[index].self_attn
        past = cache.length(index)
        normed = _normed(layer.input_layernorm, hidden)
        queries = _rotated(attention.q_proj(normed), attention.head_dim, rotary)
        keys, values = self._update_cache(index, normed, rotary, cache)
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
        """Attend from new rows to `past` cached keys and their own."""
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

    def _add_mlp(self, mlp: Any, rows: torch.Tensor, normed: torch.Tensor) -> None:
        """Add the output of `mlp` to the rows, with one wide tensor fewer in memory."""
        if not self._silu:
            rows += mlp(normed)
            return
        wide = fused.silu_mul(mlp.gate_proj(normed), mlp.up_proj(normed))
        down = mlp.down_proj
        if wide.is_cuda and type(down) is torch.nn.Linear and down.bias is None:
            rows[0].addmm_(wide[0], down.weight.t())  # fused product and addition
        else:
            rows += down(wide)

    @torch.inference_mode()
    def cache_kv(self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache) -> None:
        normed = _normed(self._layers[index].input_layernorm, hidden)
        self._update_cache(index, normed, rotary, cache)

    def _update_cache(
        self, index: int, normed: torch.Tensor, rotary: Rotary, cache: LayerCache
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values of normed rows to the cache; return all of the layer."""
        attention = self._layers[index].self_attn
        keys = _rotated(attention.k_proj(normed), attention.head_dim, rotary)
        values = _heads(attention.v_proj(normed), attention.head_dim)
        return cache.update(keys, values, index)

    @torch.inference_mode()
    def queries(self, index: int, hidden: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        layer = self._layers[index]
        states = layer.self_attn.q_proj(_normed(layer.input_layernorm, hidden))
        return _rotated(states, layer.self_attn.head_dim, rotary)[0]

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._thinker.lm_head(_normed(self._text.norm, hidden))[0, -1].float()


def _slabs(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    most = MLP_ROWS_GPU if rows.is_cuda else MLP_ROWS
    return (rows,) if rows.shape[1] <= most else rows.chunk(-(-rows.shape[1] // most), 1)


def _normed(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Normalise the rows in chunks, to bound the size of the float32 copy."""
    if hidden.is_cuda or hidden.shape[1] <= MLP_ROWS:
        return fused.rms_norm(hidden, norm.weight, norm.variance_epsilon)
    normed = torch.empty_like(hidden)
    for rows, into in zip(_slabs(hidden), _slabs(normed), strict=True):
        into.copy_(fused.rms_norm(rows, norm.weight, norm.variance_epsilon))
    return normed


def _heads(states: torch.Tensor, width: int) -> torch.Tensor:
    return states.unflatten(2, (-1, width)).transpose(1, 2)


def _rotated(states: torch.Tensor, width: int, rotary: Rotary) -> torch.Tensor:
    """Split (1, n, heads · width) into heads and rotate them, (1, heads, n, width)."""
    cos, sin = rotary
    return fused.rotate(_heads(states, width), cos[:, None], sin[:, None])


def _stop_ids(thinker: Any, end_of_turn: int) -> frozenset[int]:
    settings = getattr(thinker, "generation_config", None)
    told = getattr(settings, "eos_token_id", None)
    ends = told if isinstance(told, (list, tuple)) else [] if told is None else [told]
    return frozenset({end_of_turn, *map(int, ends)})


def _fingerprint(holder: Any) -> str:
    """Return a hash of the encoders' last projections; it does not depend on the dtype loaded."""
    digest = hashlib.sha256()
    for weight in (holder.audio_tower.proj.weight, holder.visual.merger.mlp[-1].weight):
        digest.update(str(tuple(weight.shape)).encode())
        rows = weight.detach()[:4].cpu().to(torch.float16).to(torch.bfloat16)
        digest.update(rows.contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]
