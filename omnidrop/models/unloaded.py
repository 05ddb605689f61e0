"""Describes a model without loading weights: sizes, tokenizer and media specs, for estimates.

A checkpoint on this machine is described by its files. Published models need no files: their family
states their sizes, and a token is counted for every four letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from omnidrop.clip.specs import AudioSpec, MediaSpec, VideoSpec
from omnidrop.errors import ModelError
from omnidrop.models.checking import readable
from omnidrop.models.family import Family, Template, aliases, published
from omnidrop.models.hub import split_revision
from omnidrop.models.loading import (
    LoadOptions,
    Location,
    check,
    dtype_for,
    estimate,
    pick_device,
    pick_dtype,
    resolve,
)
from omnidrop.models.locations import cached, long_name
from omnidrop.models.quantising import PACKED, QUANTISED
from omnidrop.shapes import Shapes
from omnidrop.tokens import TextEncoder


@dataclass(frozen=True)
class Unloaded:
    """What is known of a model before it is loaded.

    Attributes
    ----------
    name : str
    here : bool
        True if its files are on this machine.
    shapes : Shapes
    video_spec : VideoSpec
    audio_spec : AudioSpec
    template : Template
    encoder : TextEncoder
        Its tokenizer, or `RoughEncoder` if that is not on this machine.
    device, dtype : str
        Device and dtype that it would run with.
    quantization : str or None
    parameters : int
        Number of parameters in the parts that would be loaded.
    weights : int
        Their bytes, quantised as requested.
    buffer : int
        Bytes of the buffer in which matrices are widened; see `Weights.buffer_bytes`.
    """

    name: str
    here: bool
    shapes: Shapes
    video_spec: VideoSpec
    audio_spec: AudioSpec
    template: Template
    encoder: TextEncoder
    device: str
    dtype: str
    quantization: str | None
    parameters: int
    weights: int
    buffer: int = 0

    @property
    def media_spec(self) -> MediaSpec:
        """The encoders' requirements on a clip."""
        return MediaSpec(
            self.video_spec,
            self.audio_spec,
            self.template.chunk_seconds,
            self.template.audio_tokens,
        )

    @property
    def bytes_per_value(self) -> int:
        """Bytes per value of hidden states, keys and values."""
        return torch.empty(0, dtype=getattr(torch, self.dtype)).element_size()


class RoughEncoder:
    """Counts a token for every four letters of a word, if there is no tokenizer."""

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return made-up ids, and the characters that each stands for."""
        spans = [
            (at, min(at + 4, word.end()))
            for word in re.finditer(r"\s?\S+|\s", text)
            for at in range(word.start(), word.end(), 4)
        ]
        return [0] * len(spans), spans


def media_spec_of(location: Location) -> MediaSpec:
    """Return what a checkpoint asks of clips, by its config alone; it can be pickled.

    Parameters
    ----------
    location : Location

    Raises
    ------
    ModelError
        If a file of the checkpoint is not JSON, or says something that no model can have.
    """
    family, config = location.family, location.config
    with readable(location.folder):
        video, audio = family.media(location.folder, config)
        template = family.template(config, None)
    return MediaSpec(video, audio, template.chunk_seconds, template.audio_tokens)


def describe(options: LoadOptions, *, card: bool = False) -> Unloaded:
    """Describe a model; nothing is downloaded and no weight is read.

    Parameters
    ----------
    options : LoadOptions
    card : bool
        Count the weights as a GPU would hold them, whatever the device is.

    Raises
    ------
    ModelError
        If it is not on this machine and its family does not state its sizes.
    """
    known = aliases()
    name = long_name(options.model or "")
    found = published(split_revision(name)[0])
    if found is not None and cached(name) is None:
        return _published(name, *found, options, card)
    offline = LoadOptions(**{**vars(options), "offline": True})
    try:
        location = resolve(offline)
    except ModelError as error:
        raise ModelError(
            f"{error.what} Estimates do not download models.",
            path=error.path,
            hint=f"Name a model that is here, or {' or '.join(known)}, whose sizes are known.",
        ) from error
    return _local(location, options, card)


def _local(location: Location, options: LoadOptions, card: bool) -> Unloaded:
    check(location)
    with readable(location.folder):
        return _read(location, options, card)


def _read(location: Location, options: LoadOptions, card: bool) -> Unloaded:
    """Return what the files of a checkpoint say."""
    family, config = location.family, location.config
    device = pick_device(options.device)
    need = estimate(location, options, card=card)
    video_spec, audio_spec = family.media(location.folder, config)
    codec = family.codec(location.folder)
    return Unloaded(
        name=location.name,
        here=True,
        shapes=family.shapes(config),
        video_spec=video_spec,
        audio_spec=audio_spec,
        template=family.template(config, None),
        encoder=codec if codec is not None else RoughEncoder(),
        device=str(device),
        dtype=str(pick_dtype(options, location, device)).removeprefix("torch."),
        quantization=options.quantize,
        parameters=need.weights.parameters,
        weights=need.weights.total_bytes,
        buffer=need.weights.buffer_bytes,
    )


def _published(
    name: str, family: Family, shapes: Shapes, options: LoadOptions, card: bool
) -> Unloaded:
    device = pick_device(options.device)
    dtype = dtype_for(options, None, device)
    mapped = device.type == "cpu" and not card
    size, width, tables = dtype.itemsize, None, None
    if mapped and (options.quantize is not None or options.dtype == "auto"):
        size = min(size, torch.bfloat16.itemsize)  # published weights stay as they are stored
    if options.quantize is not None:
        small = PACKED if mapped and shapes.text.experts is None else QUANTISED
        width, tables = small[options.quantize], PACKED["8bit"] if mapped else None
    widens = mapped and (size != dtype.itemsize or options.quantize is not None)
    video_spec, audio_spec = family.media(None, None)
    return Unloaded(
        name=name,
        here=False,
        shapes=shapes,
        video_spec=video_spec,
        audio_spec=audio_spec,
        template=family.template(None, None),
        encoder=RoughEncoder(),
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        quantization=options.quantize,
        parameters=shapes.parameters,
        weights=shapes.weight_bytes(size, width, tables),
        buffer=shapes.largest_matrix * dtype.itemsize if widens else 0,
    )
