"""Would a card of so much memory take a question? If not, the settings with which it would.

    from omnidrop.profiling.estimate import estimate
    found = estimate("clip.mp4", "What plays?", [omnidrop.OmniDrop(budget=0.3)],
                     model=omnidrop.LoadOptions(model="7b"), memory=12e9)
    print(found.room.fits, found.room.proposals)

Settings are changed in order of least loss: weights in 4 bits, a lower budget, smaller frames,
fewer frames, a shorter span. A later one is left as it was asked for where earlier ones are enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from omnidrop.errors import OmniDropError
from omnidrop.format import clock, size
from omnidrop.shapes import with_buffers

BUDGETS = (0.5, 0.3, 0.2, 0.1)
PIXEL_FACTORS = (0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.06)
RATE_FACTORS = (0.5, 0.25, 0.125)
SPAN_FACTORS = (0.5, 0.25, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Setup:
    """What may be changed; None leaves what was asked for.

    Attributes
    ----------
    quantize : str or None
        "4bit".
    budget : float or None
    max_pixels : int or None
    fps : float or None
    seconds : float or None
        Length of the span.
    """

    quantize: str | None = None
    budget: float | None = None
    max_pixels: int | None = None
    fps: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Proposal:
    """Settings with which the question fits.

    Attributes
    ----------
    options : tuple of str
        For the command line, such as ("--4bit", "--budget 0.3").
    peak : int
        Most bytes held at once.
    """

    options: tuple[str, ...]
    peak: int


@dataclass(frozen=True)
class Room:
    """Whether a card takes the question.

    Attributes
    ----------
    memory : int
        Bytes of the card.
    peak : int
        Most bytes held at once as it was asked.
    fits : bool
    proposals : tuple of Proposal
        If it does not fit: with the weights in 4 bits, and without, where that can fit.
    """

    memory: int
    peak: int
    fits: bool
    proposals: tuple[Proposal, ...] = ()


@dataclass(frozen=True)
class Start:
    """What was asked for, from which `room` goes on.

    Attributes
    ----------
    quantize : str or None
    budget : float
    area : int or None
        Pixels of a frame; None without video.
    least_area : int
        Pixels below which frames cannot be made.
    fps : float or None
        Frames a second as sampled; None without video.
    start, seconds : float
        Start and length of the span.
    """

    quantize: str | None
    budget: float
    area: int | None
    least_area: int
    fps: float | None
    start: float
    seconds: float


def room(memory: float, start: Start, peak_of: Callable[[Setup], int]) -> Room:
    """Find out whether a question fits, and with what it would.

    Parameters
    ----------
    memory : float
        Bytes of the card.
    start : Start
    peak_of : callable
        From a setup to the most bytes held at once, asked once for each. Raises OmniDropError for
        one that cannot be.
    """

    @cache
    def peak(setup: Setup) -> float:
        try:
            return peak_of(setup)
        except OmniDropError:  # a setting that this clip or method cannot have
            return math.inf

    def fits(count: float) -> bool:
        return count < math.inf and with_buffers(count) <= memory

    asked = peak_of(Setup())
    if fits(asked):
        return Room(int(memory), asked, True)
    found = []
    for quantize in _quantisations(start):
        setup = _least_loss(Setup(quantize=quantize), start, lambda tried: fits(peak(tried)), peak)
        if setup is not None:
            found.append(Proposal(_options(setup, start), int(peak(setup))))
    return Room(int(memory), asked, False, tuple(found))


def _quantisations(start: Start) -> tuple[str | None, ...]:
    return (None,) if start.quantize is not None else ("4bit", None)


def _least_loss(
    setup: Setup, start: Start, fits: Callable[[Setup], bool], peak: Callable[[Setup], float]
) -> Setup | None:
    """Return the setup with the least loss that fits; None if none does."""
    values = {
        name: [v for v in known if peak(replace(setup, **{name: v})) < math.inf]
        for name, known in _values(start).items()
    }
    names = list(values)
    for count in range(len(names) + 1):
        lowest = replace(setup, **{name: values[name][-1] for name in names[:count]})
        if fits(lowest):
            break
    else:
        return None
    # What loses most is set back first, as far as the rest allows.
    for name in reversed(names[:count]):
        milder = (replace(lowest, **{name: value}) for value in values[name])
        lowest = next(each for each in milder if fits(each))
    return lowest


def _values(start: Start) -> dict[str, list[Any]]:
    """Return the values of each setting, from what was asked for to the lowest."""
    found: dict[str, list[Any]] = {
        "budget": [None, *(b for b in BUDGETS if b < start.budget)],
        "max_pixels": [None],
        "fps": [None],
        "seconds": [None, *(start.seconds * factor for factor in SPAN_FACTORS)],
    }
    if start.area is not None and start.fps is not None:
        areas = (int(start.area * factor) for factor in PIXEL_FACTORS)
        found["max_pixels"] += [area for area in areas if area >= start.least_area]
        found["fps"] += [float(f"{start.fps * factor:.2g}") for factor in RATE_FACTORS]
    return found


def _options(setup: Setup, start: Start) -> tuple[str, ...]:
    """Return a setup as options of the command line."""
    options = []
    if setup.quantize is not None:
        options.append(f"--{setup.quantize}")
    if setup.budget is not None:
        options.append(f"--budget {setup.budget:g}")
    if setup.max_pixels is not None:
        options.append(f"--max-pixels {setup.max_pixels}")
    if setup.fps is not None:
        options.append(f"--fps {setup.fps:g}")
    if setup.seconds is not None:
        options.append(f"--end {clock(start.start + setup.seconds, None)}")
    return tuple(options)


def described(found: Room) -> Sequence[str]:
    """Return the finding as sentences for a person."""
    if found.fits:
        return (f"Fits into {size(found.memory)}: it takes {size(found.peak)} at most.",)
    lines = [f"Does not fit into {size(found.memory)}: it takes {size(found.peak)}."]
    for proposal in found.proposals:
        lines.append(f"Fits with {' '.join(proposal.options)} ({size(proposal.peak)}).")
    if not found.proposals:
        lines.append("No setting makes it fit; take a smaller model.")
    return tuple(lines)
