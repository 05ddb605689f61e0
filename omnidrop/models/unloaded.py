"""A model without its weights: sizes, tokenizer and what its towers ask, enough for an estimate.

A checkpoint on this machine is described by its own files. Qwen2.5-Omni-3B and -7B are known even
where they are not: their sizes are published, and a token is then taken for four letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from omnidrop.clip.specs import AudioSpec, MediaSpec, VideoSpec
from omnidrop.errors import ModelError
from omnidrop.models.adapter import AudioShape, TextShape, VisionShape
from omnidrop.models.loading import (
    DTYPES,
    LoadOptions,
    Location,
    estimate,
    pick_device,
    pick_dtype,
    resolve,
)
from omnidrop.models.locations import ALIASES, cached
from omnidrop.models.quantising import QUANTISED
from omnidrop.prompt import Layout, TextEncoder


@dataclass(frozen=True)
class Sketch:
    """What is known of a model before it is loaded.

    Attributes
    ----------
    name : str
    here : bool
        Whether its files are on this machine.
    text : TextShape
    vision : VisionShape
    audio : AudioShape
    video_spec : VideoSpec
    audio_spec : AudioSpec
    layout : Layout
    encoder : TextEncoder
        Its tokenizer, or a rough count where that is not here.
    device, dtype : str
        Where and in what it would compute.
    quantization : str or None
    parameters : int
        Of the parts that would be loaded.
    weights : int
        Bytes of them, quantised as asked.
    """

    name: str
    here: bool
    text: TextShape
    vision: VisionShape
    audio: AudioShape
    video_spec: VideoSpec
    audio_spec: AudioSpec
    layout: Layout
    encoder: TextEncoder
    device: str
    dtype: str
    quantization: str | None
    parameters: int
    weights: int

    @property
    def media_spec(self) -> MediaSpec:
        """What the model asks of a clip."""
        return MediaSpec(self.video_spec, self.audio_spec, self.layout.seconds_per_chunk)

    @property
    def bytes_per_value(self) -> int:
        """Bytes of one number of hidden states, keys and values."""
        return torch.empty(0, dtype=getattr(torch, self.dtype)).element_size()


#: Sizes of the thinkers by hub name: their decoders, and parameters without the towers.
_TEXTS = {
    ALIASES["3b"]: TextShape(36, 2048, 11008, 16, 2, 128, 151_936),
    ALIASES["7b"]: TextShape(28, 3584, 18944, 28, 4, 128, 152_064),
}
#: Ids do not matter to an estimate, only that they differ.
_LAYOUT = Layout(1, 2, 3, 4, 5, 6, 7, 8)


class RoughEncoder:
    """Takes every word for its length in fours, for want of a tokenizer."""

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return made-up ids, and the characters that each stands for."""
        spans = [
            (at, min(at + 4, word.end()))
            for word in re.finditer(r"\s?\S+|\s", text)
            for at in range(word.start(), word.end(), 4)
        ]
        return [0] * len(spans), spans


def sketch(options: LoadOptions) -> Sketch:
    """Describe a model; nothing is downloaded and no weight is read.

    Raises
    ------
    ModelError
        If it is not on this machine and not one that is known without its files.
    """
    name = ALIASES.get((options.model or "").lower(), options.model or "")
    if name in _TEXTS and cached(name) is None:
        return _published(name, options)
    offline = LoadOptions(**{**vars(options), "offline": True})
    try:
        location = resolve(offline)
    except ModelError as error:
        raise ModelError(
            f"{error.what} An estimate downloads nothing.",
            path=error.path,
            hint="Name a model that is here, or 3b or 7b, whose sizes are known.",
        ) from error
    return _local(location, options)


def _local(location: Location, options: LoadOptions) -> Sketch:
    from transformers import Qwen2_5OmniThinkerConfig

    from omnidrop.models.qwen2_5_omni import adapter as family

    config = Qwen2_5OmniThinkerConfig.from_dict(dict(location.thinker_config))
    device = pick_device(options.device)
    need = estimate(location, options)
    video_spec, audio_spec = family.media_specs(location.folder, config)
    return Sketch(
        name=location.name,
        here=True,
        text=family._text_shape(config.text_config),
        vision=family._vision_shape(config.vision_config),
        audio=family._audio_shape(config.audio_config),
        video_spec=video_spec,
        audio_spec=audio_spec,
        layout=_LAYOUT,
        encoder=_encoder(location),
        device=str(device),
        dtype=str(pick_dtype(options, location, device)).removeprefix("torch."),
        quantization=options.quantize,
        parameters=need.parameters,
        weights=need.host + need.device,
    )


def _encoder(location: Location) -> TextEncoder:
    from tokenizers import Tokenizer

    from omnidrop.models.qwen2_5_omni.adapter import Codec

    path = location.folder / "tokenizer.json"
    if not path.is_file():
        return RoughEncoder()
    try:
        return Codec(SimpleNamespace(backend_tokenizer=Tokenizer.from_file(str(path))))
    except Exception as error:  # the library raises a bare Exception
        raise ModelError(f"The tokenizer cannot be read: {error}.", path=path) from error


def _published(name: str, options: LoadOptions) -> Sketch:
    text = _TEXTS[name]
    vision = VisionShape(32, 1280, 3420, 16, 14, 2, 2, 112, (7, 15, 23, 31), text.hidden)
    audio = AudioShape(32, 1280, 5120, 20, 128, 200, text.hidden)
    dtype = DTYPES[options.dtype] or torch.bfloat16
    size = torch.empty(0, dtype=dtype).element_size()
    layer = text.hidden * (2 * (text.heads + text.kv_heads) * text.head_dim + 3 * text.intermediate)
    linears, tables = text.layers * layer, 2 * text.vocab * text.hidden
    towers = _vision_weights(vision) + _audio_weights(audio)
    width = QUANTISED[options.quantize] if options.quantize is not None else size
    return Sketch(
        name=name,
        here=False,
        text=text,
        vision=vision,
        audio=audio,
        video_spec=VideoSpec(),
        audio_spec=AudioSpec(),
        layout=_LAYOUT,
        encoder=RoughEncoder(),
        device=str(pick_device(options.device)),
        dtype=str(dtype).removeprefix("torch."),
        quantization=options.quantize,
        parameters=linears + tables + towers,
        weights=round(linears * width + (tables + towers) * size),
    )


def _vision_weights(shape: VisionShape) -> int:
    """Return the parameters of a vision tower's matrices."""
    block = shape.hidden * (4 * shape.hidden + 3 * shape.intermediate)
    group = shape.merge**2 * shape.hidden
    embedding = 3 * shape.temporal_patch * shape.patch**2 * shape.hidden
    return shape.layers * block + group * (group + shape.output) + embedding


def _audio_weights(shape: AudioShape) -> int:
    """Return the parameters of an audio tower's matrices."""
    block = shape.hidden * (4 * shape.hidden + 2 * shape.intermediate)
    convolutions = 3 * shape.hidden * (shape.mel_bins + shape.hidden)
    return shape.layers * block + convolutions + shape.hidden * shape.output
