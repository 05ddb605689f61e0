"""The `Adapter` of a multimodal thinker in transformers: runs the weights of its modules.

Both module layouts of transformers are supported: encoders and text model directly under the
thinker (transformers 5.17), or all under its `model` (5.23). A family adds its encoders, its
template and what its decoder layers do differently.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.errors import ModelError
from omnidrop.models import fused, kernels
from omnidrop.models.adapter import Adapter, LayerCache, ModelInfo, Rotary, TextCodec
from omnidrop.models.attention import attend, attend_from_few, causal_mask
from omnidrop.models.codec import Codec
from omnidrop.models.gradients import Decoder, LayersDecoder
from omnidrop.models.kernels import Choice
from omnidrop.shapes import MLP_ROWS, MLP_ROWS_GPU, Shapes

#: Up to this many new rows attend to cached keys without repeating the keys for each head.
FEW_ROWS = 256

#: Rows of each of the encoders' last projections that tell encoders apart.
_FINGERPRINT_ROWS = 64


class ThinkerAdapter(Adapter):
    """Adapter of a loaded thinker.

    Parameters
    ----------
    thinker : Module
        A thinker of transformers on one device.
    tokenizer : PreTrainedTokenizerFast
    name : str
        Name in `ModelInfo`.
    folder : Path, optional
        The checkpoint's folder, for its limits on frames and audio.
    demo : bool
    quantization : str or None
    parameters : int, optional
        Parameter count before quantisation; counted if not given.

    Attributes
    ----------
    family : str
        Name of the family, for reports.

    Raises
    ------
    ModelError
        If the tokenizer does not match the config.
    """

    family: ClassVar[str]

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
                hint=f"Use a checkpoint of the {self.family} family as published.",
            )
        parameters = parameters or sum(p.numel() for p in thinker.parameters())
        self._vision, self._audio = self._towers(holder)
        self.folder, self.fingerprint = folder, _fingerprint(*self._last_projections(holder))
        self.device, self.dtype = thinker.device, _computes_in(self._text)
        self._implementation = self._text.config._attn_implementation
        self._silu = self._text.config.hidden_act == "silu"
        self.scaling = float(self._layers[0].self_attn.scaling)
        self.text = Codec(tokenizer)
        template = self._template(self.text, name)
        self.template = template
        self.stop_ids = _stop_ids(thinker, template.im_end)
        self.video_spec, self.audio_spec = self._media_specs(folder)
        sizes = self._shapes()
        self.info = ModelInfo(
            name=name,
            family=self.family,
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

    @abstractmethod
    def _towers(self, holder: Any) -> tuple[Any, Any]:
        """Return what runs the vision encoder and the audio encoder of `holder`."""

    @abstractmethod
    def _last_projections(self, holder: Any) -> tuple[torch.Tensor, ...]:
        """Return the weights that identify the encoders: those of their last projections."""

    @abstractmethod
    def _template(self, codec: TextCodec, name: str) -> Any:
        """Return the template of the thinker's config, a `ChatML`."""

    @abstractmethod
    def _media_specs(self, folder: Path | None) -> tuple[VideoSpec, AudioSpec]:
        """Return what the encoders ask of frames and audio."""

    @abstractmethod
    def _shapes(self) -> Shapes:
        """Return the sizes in the thinker's config."""

    @staticmethod
    def _norms(attention: Any) -> tuple[Any, Any]:
        """Return the norms of a layer's query heads and key heads; None for none."""
        return None, None

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
        query_norm, _ = self._norms(attention)
        queries = _rotated(attention.q_proj(normed), attention.head_dim, rotary, query_norm)
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
        _, key_norm = self._norms(attention)
        keys = _rotated(attention.k_proj(normed), attention.head_dim, rotary, key_norm)
        values = _heads(attention.v_proj(normed), attention.head_dim)
        return cache.update(keys, values, index)

    @torch.inference_mode()
    def queries(self, index: int, hidden: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        layer, attention = self._layers[index], self._layers[index].self_attn
        query_norm, _ = self._norms(attention)
        states = attention.q_proj(_normed(layer.input_layernorm, hidden))
        return _rotated(states, attention.head_dim, rotary, query_norm)[0]

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._thinker.lm_head(_normed(self._text.norm, hidden))[0, -1].float()

    def decoder(self) -> Decoder:
        return LayersDecoder(
            self._text,
            self._thinker.lm_head,
            self._implementation,
            folder=self.folder,
            name=self.info.name,
        )


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


def _rotated(states: torch.Tensor, width: int, rotary: Rotary, norm: Any | None) -> torch.Tensor:
    """Split (1, n, heads · width) into heads, normalise them if there is a norm, and rotate them.

    Returns (1, heads, n, width).
    """
    cos, sin = rotary
    heads = states.unflatten(2, (-1, width))
    if norm is not None:
        heads = fused.rms_norm(heads, norm.weight, norm.variance_epsilon)
    return fused.rotate(heads.transpose(1, 2), cos[:, None], sin[:, None])


def _computes_in(text: Any) -> torch.dtype:
    """Return the dtype of embeddings, of whatever kind their table is."""
    table = text.embed_tokens
    dtype: torch.dtype = table.dtype if hasattr(table, "dtype") else table.weight.dtype
    return dtype


def _stop_ids(thinker: Any, end_of_turn: int) -> frozenset[int]:
    settings = getattr(thinker, "generation_config", None)
    told = getattr(settings, "eos_token_id", None)
    ends = told if isinstance(told, (list, tuple)) else [] if told is None else [told]
    return frozenset({end_of_turn, *map(int, ends)})


def _fingerprint(*weights: torch.Tensor) -> str:
    """Return a hash of the signs of weights, which no rounding to another dtype changes."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(str(tuple(weight.shape)).encode())
        digest.update(weight.detach()[:_FINGERPRINT_ROWS].signbit().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
