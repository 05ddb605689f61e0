"""Which model to ask instead of one that knows too little: its download, whether it fits, how long.

Everything is estimated before anything is downloaded (`omnidrop.profiling.estimate`). Times are a
lower bound: FLOPs over the speed of a large matrix product on this machine, without reading the
file, loading the weights and decoding the answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from omnidrop.clip.options import ClipOptions
from omnidrop.errors import OmniDropError
from omnidrop.models.family import aliases, families
from omnidrop.models.loading import pick_device
from omnidrop.models.locations import cached
from omnidrop.models.memory import gigabytes, memory_free
from omnidrop.models.packed import quick_4_bits
from omnidrop.options import DEFAULT_BUDGET, LoadOptions
from omnidrop.profiling.estimate import estimate
from omnidrop.pruning.methods.omnidrop import OmniDrop
from omnidrop.shapes import with_buffers


@dataclass(frozen=True)
class Advice:
    """A model that could answer about a clip, on this machine.

    Attributes
    ----------
    alias, name : str
        Its short name and its hub name.
    quantize : str or None
        "4bit", or None.
    here : bool
        Whether its files are on this machine.
    download : int or None
        Bytes to download; None if it is here, or if its family does not state them.
    peak : int
        Bytes that it needs at most, by estimate.
    free : int
        Bytes that are free where it would run.
    seconds : float
        Least seconds from the question to the first word of the answer.
    device : str
    """

    alias: str
    name: str
    quantize: str | None
    here: bool
    download: int | None
    peak: int
    free: int
    seconds: float
    device: str

    @property
    def fits(self) -> bool:
        """Whether it fits into the free memory."""
        return with_buffers(self.peak) <= self.free

    def sentence(self) -> str:
        """Return one sentence about download, memory and time."""
        from omnidrop.format import rounded_duration

        seconds = float(f"{self.seconds:.1g}")
        minutes = f"{seconds / 60:.1g} minutes"
        rough = minutes if seconds > 90 else rounded_duration(seconds)
        bits = f" in {self.quantize.replace('bit', ' bits')}" if self.quantize else ""
        size = "unknown size" if self.download is None else gigabytes(self.download)
        where = "which is on this machine" if self.here else f"a download of {size}"
        need = gigabytes(with_buffers(self.peak))
        there = "the GPU" if self.device.startswith("cuda") else "this machine"
        room = f", and {gigabytes(self.free)} are free on {there}"
        fit = "It fits" if self.fits else "It does NOT fit here now"
        time = f"An answer takes at least {rough} here, once it is loaded."
        return f"{self.name}{bits}, {where}. {fit}: it needs about {need}{room}. {time}"


def real_model(
    path: str | os.PathLike[str],
    question: str,
    clip: ClipOptions | None = None,
    *,
    device: str = "auto",
) -> Advice | None:
    """Return the model to ask about a clip; None if nothing is known about any.

    Of the models with a short name, those in the hub's cache come first; else those of the first
    family. On a GPU the largest that fits is taken; on a CPU the smallest. In 4 bits only where it
    does not fit otherwise, and a CPU has quick products for them. If none fits, it is the smallest.

    Parameters
    ----------
    path : path-like
        The clip; it is opened, not decoded.
    question : str
    clip : ClipOptions, optional
    device : str
        As of `LoadOptions`.
    """
    found = []
    for alias, name, quantize in _candidates(pick_device(device).type == "cuda"):
        one = _advice(alias, name, quantize, path, question, clip, device)
        if one is not None and one.fits:
            return one
        found.append(one)
    return min((one for one in found if one is not None), key=lambda one: one.peak, default=None)


def _candidates(gpu: bool) -> Iterator[tuple[str, str, str | None]]:
    """Yield alias, hub name and quantisation, the best first."""
    here = {alias: name for alias, name in aliases().items() if cached(name) is not None}
    known = here or next((dict(f.aliases) for f in families() if f.aliases), {})
    for alias, name in reversed(known.items()) if gpu else known.items():
        yield alias, name, None
        if gpu or quick_4_bits():
            yield alias, name, "4bit"


def _advice(
    alias: str,
    name: str,
    quantize: str | None,
    path: str | os.PathLike[str],
    question: str,
    clip: ClipOptions | None,
    device: str,
) -> Advice | None:
    chosen = pick_device(device)
    options = LoadOptions(model=alias, device=device, quantize=quantize, offline=True)
    try:
        found = estimate(
            path, question, [OmniDrop(budget=DEFAULT_BUDGET)], model=options, clip=clip
        )
    except OmniDropError:  # the question has been refused for a better reason
        return None
    here = bool(found.model["here"])
    return Advice(
        alias=alias,
        name=name,
        quantize=quantize,
        here=here,
        download=None if here else download_bytes(name),
        peak=found.runs[0].peak,
        free=memory_free(chosen),
        seconds=found.runs[0].seconds,
        device=str(torch.device(chosen)),
    )


def download_bytes(name: str) -> int | None:
    """Return the bytes of a model's files on the hub, if its family states them."""
    for family in families():
        if name in family.downloads:
            return family.downloads[name]
    return None
