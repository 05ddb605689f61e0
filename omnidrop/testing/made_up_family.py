"""A complete made-up model family: an example of the code that a new family needs.

`docs/add-a-model.md` walks through this file. The model itself, which a real family would take from
a library, is in `made_up_model`. Tests run the engine with this family and the built-in one, so
that nothing outside `omnidrop/models/` depends on one family's numbers.

    from omnidrop.models.family import registered
    from omnidrop.testing.made_up_family import FAMILY, write_checkpoint

    with registered(FAMILY):
        model = omnidrop.load(str(write_checkpoint(folder)))

A separate package would declare `FAMILY` as an entry point instead of calling `registered`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from omnidrop.clip.specs import AudioSpec, VideoSpec
from omnidrop.errors import ModelError
from omnidrop.models import kernels
from omnidrop.models.adapter import Adapter, Embeds, LayerCache, ModelInfo, Rotary, TextCodec
from omnidrop.models.codec import Codec, read_codec
from omnidrop.models.family import OTHERS, LoadRequest, Template
from omnidrop.models.folder_checks import refuse_missing, refuse_other_shapes
from omnidrop.models.locations import weights
from omnidrop.models.mrope import after_highest, clip_map, video_cells
from omnidrop.recommended import Recommended
from omnidrop.shapes import AudioShape, Projections, Shapes, TextShape, VisionShape
from omnidrop.testing.made_up_model import MadeUpConfig, MadeUpOmni, angles
from omnidrop.tokens import Asked, ClipTokens, Media, Piece

NAME, MODEL_TYPE = "Made-Up-Omni", "made_up_omni"

#: Special tokens, in the order of their ids, by the field of `MadeUpConfig`.
SPECIALS = {
    "user": "<user>",
    "end": "<end>",
    "model": "<model>",
    "clip_start": "<clip>",
    "clip_end": "</clip>",
    "video": "<video>",
    "audio": "<audio>",
}


# The prompt


@dataclass(frozen=True)
class MadeUpTemplate:
    """The prompt: `<user><clip>…</clip>question<end><model>`; a system turn only if requested.

    Video and audio tokens are ordered by time. The temporal position of a video token is its time
    in tenths of a second, as a fraction; that of an audio token is its index.
    """

    config: MadeUpConfig
    system: str | None = None
    chunk_seconds: float = 1.5
    position_dtype: torch.dtype = torch.float32

    @property
    def positions_per_second(self) -> float:
        """Temporal positions per second of clip."""
        return self.config.positions_per_second

    @property
    def mel_per_token(self) -> Fraction:
        """Log-mel frames of an audio token."""
        return Fraction(self.config.mel_per_token)

    @property
    def max_positions(self) -> int:
        """Positions the model was trained on."""
        return self.config.max_positions

    def chat(
        self, question: str, system: str | None, *, media: bool
    ) -> tuple[list[Piece], list[Piece]]:
        """Write the turn around the clip."""
        config = self.config
        before: list[Piece] = [config.user]
        if system is not None:
            before = [f"{system}\n", config.user]
        asked, answer = Asked(question, 0), [config.end, config.model]
        return (before, [asked, *answer]) if media else ([*before, asked], [*answer])

    def follow_up(self, question: str) -> list[Piece]:
        """Write another turn."""
        config = self.config
        return [config.end, config.user, Asked(question, 0), config.end, config.model]

    def audio_tokens(self, mel_frames: int) -> int:
        """Return the number of audio tokens of `mel_frames` frames; incomplete ones are dropped."""
        return mel_frames // self.config.mel_per_token

    def next_position(self, positions: torch.Tensor) -> int | float:
        """Return the highest position plus one."""
        return after_highest(positions)

    def clip(self, media: Media, start: int) -> ClipTokens:
        """Lay out a clip in the order of time, video before audio of the same time."""
        config, rate = self.config, self.config.positions_per_second
        cells = np.empty((0, 3), np.int64)
        if media.grid is not None:
            cells = video_cells(media.grid, config.merge)
        places = cells.T.astype(np.float64)
        places[0] *= (media.second_per_grid or 0.0) * rate
        audio = np.tile(np.arange(media.audio_tokens, dtype=np.float64), (3, 1))
        both = np.concatenate([places, audio], axis=1)
        order = np.argsort(both[0], kind="stable")
        chunks = (both[0] / (rate * self.chunk_seconds)).astype(np.int64)
        inside = start + 1 + both[:, order]
        end = float(inside.max()) + 1
        edges = (np.full((3, 1), float(start)), inside, np.full((3, 1), end))
        ids = np.where(order < len(cells), config.video, config.audio)
        return ClipTokens(
            ids=torch.from_numpy(np.concatenate([[config.clip_start], ids, [config.clip_end]])),
            tokens=clip_map(cells, media.audio_tokens, chunks, order, markers=1),
            positions=torch.from_numpy(np.concatenate(edges, axis=1)).to(self.position_dtype),
            end=end + 1,
        )


# The model behind the engine's contract


class MadeUpAdapter(Adapter):
    """The `Adapter` of a loaded `MadeUpOmni`."""

    def __init__(self, model: MadeUpOmni, codec: Codec, request: LoadRequest) -> None:
        config = model.config
        self._model, self._config = model.eval().requires_grad_(False), config
        self.device, self.dtype = request.device, request.dtype
        self.folder, self.text = request.folder, codec
        self.template: Template = FAMILY.template(request.config, codec)
        self.stop_ids = frozenset({config.end})
        self.video_spec, self.audio_spec = FAMILY.media(request.folder, request.config)
        self.scaling = config.head_dim**-0.5
        sizes = FAMILY.shapes(request.config)
        self.info = ModelInfo(
            name=request.name,
            family=NAME,
            demo=request.demo,
            dtype=str(request.dtype).removeprefix("torch."),
            device=str(request.device),
            attention=request.attention,
            quantization=None,
            text=sizes.text,
            vision=sizes.vision,
            audio=sizes.audio,
            parameters=request.parameters,
        )

    @torch.inference_mode()
    def encode_video(
        self, patches: torch.Tensor, grid: tuple[int, int, int], *, attention: bool = False
    ) -> Embeds:
        first, second, received = self._model.vision(patches.to(self.device, self.dtype), grid)
        return Embeds((first, second), received if attention else None)

    @torch.inference_mode()
    def encode_audio(self, mel: torch.Tensor, *, attention: bool = False) -> Embeds:
        return Embeds((self._model.audio(mel.to(self.device, self.dtype)),))

    @torch.inference_mode()
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._model.embed(ids.to(self.device))

    @torch.inference_mode()
    def rotary(self, positions: torch.Tensor) -> Rotary:
        turned = angles(positions.to(self.device), self._config.head_dim)[None]
        return turned.cos().to(self.dtype), turned.sin().to(self.dtype)

    @torch.inference_mode()
    def layer(
        self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache
    ) -> torch.Tensor:
        layer, new = self._model.layer(index), hidden.shape[1]
        normed = layer.norm1(hidden)
        query = _rotated(layer.q(normed), rotary, self._config.head_dim)
        key, value = self._cached(index, normed, rotary, cache)
        filled = cache.filled(index)
        if filled is not None:  # a decoding step over buffers of fixed size
            out = kernels.over_filled(query, key, value, filled, scaling=self.scaling)
        else:
            past = key.shape[2] - new
            seen = torch.ones(new, past + new, dtype=torch.bool, device=hidden.device).tril(past)
            out = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=seen, scale=self.scaling, enable_gqa=True
            ).transpose(1, 2)
        hidden = hidden + layer.o(out.flatten(2))
        return hidden + layer.mlp(layer.norm2(hidden))

    @torch.inference_mode()
    def cache_kv(self, index: int, hidden: torch.Tensor, rotary: Rotary, cache: LayerCache) -> None:
        self._cached(index, self._model.layer(index).norm1(hidden), rotary, cache)

    def _cached(
        self, index: int, normed: torch.Tensor, rotary: Rotary, cache: LayerCache
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values of normed rows to the cache; return all of the layer."""
        layer, width = self._model.layer(index), self._config.head_dim
        key = _rotated(layer.k(normed), rotary, width)
        return cache.update(key, _heads(layer.v(normed), width), index)

    @torch.inference_mode()
    def queries(self, index: int, hidden: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        layer = self._model.layer(index)
        return _rotated(layer.q(layer.norm1(hidden)), rotary, self._config.head_dim)[0]

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._model.head(self._model.norm(hidden[0, -1])).float()


def _heads(states: torch.Tensor, width: int) -> torch.Tensor:
    return states.unflatten(2, (-1, width)).transpose(1, 2)


def _rotated(states: torch.Tensor, rotary: Rotary, width: int) -> torch.Tensor:
    """Split (1, n, heads · width) into heads and rotate them, (1, heads, n, width)."""
    heads = _heads(states, width)
    cos, sin = (part[:, None] for part in rotary)
    one, two = heads.chunk(2, -1)
    return heads * cos + torch.cat([-two, one], -1) * sin


# The family


@dataclass(frozen=True)
class MadeUpFamily:
    """The family; see `omnidrop.models.family.Family`."""

    name: str = NAME
    model_types: tuple[str, ...] = (MODEL_TYPE,)
    aliases: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Shapes] = field(default_factory=dict)
    downloads: Mapping[str, int] = field(default_factory=dict)
    unused_weights: tuple[str, ...] = ("speaker.",)
    conventions: tuple[str, ...] = ()
    recommended: Mapping[str, Recommended] = field(
        default_factory=lambda: {OTHERS: Recommended("uniform", 0.5, "made up, like the model")}
    )

    def missing_part(self, config: Mapping[str, Any]) -> str | None:
        return next((item.name for item in fields(MadeUpConfig) if item.name not in config), None)

    def stored_dtype(self, config: Mapping[str, Any]) -> str | None:
        return str(config["dtype"])

    def quantised(self, weight: str) -> bool:
        return False

    def shapes(self, config: Mapping[str, Any]) -> Shapes:
        c = _parsed(config)
        audio = c.mel_bins * c.mel_per_token * c.hidden
        return Shapes(
            TextShape(
                layers=c.layers,
                hidden=c.hidden,
                intermediate=c.intermediate,
                heads=c.heads,
                kv_heads=c.kv_heads,
                head_dim=c.head_dim,
                vocab=c.vocab,
            ),
            VisionShape(
                layers=1,
                hidden=c.vision_hidden,
                intermediate=c.vision_intermediate,
                heads=1,
                patch=c.patch,
                temporal_patch=1,
                merge=c.merge,
                window=0,
                full_attention=(),
                output=c.hidden,
                gated=False,
                planes=2,
            ),
            AudioShape(
                layers=0,
                hidden=c.hidden,
                intermediate=0,
                heads=1,
                mel_bins=c.mel_bins,
                window=c.mel_per_token,
                output=c.hidden,
                frames_per_position=Fraction(c.mel_per_token),
                positions_per_token=1,
                projections=Projections(audio, audio, c.hidden**2),
            ),
        )

    def media(
        self, folder: Path | None, config: Mapping[str, Any] | None
    ) -> tuple[VideoSpec, AudioSpec]:
        c = MadeUpConfig() if config is None else _parsed(config)
        token = (c.patch * c.merge) ** 2
        video = VideoSpec(
            patch_size=c.patch,
            temporal_patch_size=1,
            merge_size=c.merge,
            min_pixels=4 * token,
            max_pixels=64 * token,
            total_pixels=None,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )
        return video, AudioSpec(n_mels=c.mel_bins, padded_seconds=30)

    def template(self, config: Mapping[str, Any] | None, codec: TextCodec | None) -> MadeUpTemplate:
        c = MadeUpConfig() if config is None else _parsed(config)
        if codec is not None:
            for name, token in SPECIALS.items():
                if codec.id(token) != getattr(c, name):
                    raise ModelError(f"The tokenizer gives {token} another id than the config.")
        return MadeUpTemplate(c)

    def codec(self, folder: Path) -> Codec | None:
        return read_codec(folder)

    def write_tiny(self, folder: Path) -> Path:
        return write_checkpoint(folder)

    def check(self, folder: Path, config: Mapping[str, Any]) -> None:
        with torch.device("meta"):
            wanted = MadeUpOmni(_parsed(config)).state_dict()
        found = {weight.name: weight.shape for weight in weights(folder, self.unused_weights)}
        refuse_missing(wanted.keys() - found.keys(), folder)
        refuse_other_shapes(
            [
                (name, found[name], weight.shape)
                for name, weight in wanted.items()
                if found[name] != tuple(weight.shape)
            ],
            folder,
        )

    def load(self, request: LoadRequest) -> Adapter:
        if request.quantize is not None:
            raise ModelError(
                f"{NAME} is not quantised: it is small.", hint="Load it without --4bit and --8bit."
            )
        codec = self.codec(request.folder)
        if codec is None:
            raise ModelError("The tokenizer is missing.", path=request.folder / "tokenizer.json")
        model = MadeUpOmni(_parsed(request.config))
        state = load_file(request.folder / "model.safetensors")
        used = {k: v for k, v in state.items() if not k.startswith(self.unused_weights)}
        model.load_state_dict(used)
        return MadeUpAdapter(model.to(request.device, request.dtype), codec, request)


def _parsed(config: Mapping[str, Any]) -> MadeUpConfig:
    return MadeUpConfig(**{item.name: config[item.name] for item in fields(MadeUpConfig)})


FAMILY = MadeUpFamily()


# A checkpoint


def write_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """Write a checkpoint with random weights: config, tokenizer, weights.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    seed : int
        Seed of the weights.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = MadeUpConfig()
    (folder / "config.json").write_text(json.dumps({"model_type": MODEL_TYPE, **asdict(config)}))
    _write_tokenizer(folder, config)
    state = dict(random_model(config, seed).state_dict())
    state["speaker.weight"] = torch.ones(4, 4)  # speech synthesis is not loaded
    save_file(state, folder / "model.safetensors")
    return folder


def random_model(config: MadeUpConfig, seed: int) -> MadeUpOmni:
    """Make a model with random weights whose answers do not repeat one token."""
    model = MadeUpOmni(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1 and not name.startswith("embed"):
                weight.copy_(noise * (2.0 if ".q." in name else 1.0) * weight.shape[1] ** -0.5)
            elif weight.ndim > 1:
                weight.copy_(noise)
            else:
                weight.copy_(0.1 * noise + ("norm" in name))
    return model.eval()


def _write_tokenizer(folder: Path, config: MadeUpConfig) -> None:
    """Write a tokenizer of single bytes, followed by the special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS.values()])
    tokenizer.save(str(folder / "tokenizer.json"))
