"""The grid of a method's settings that can be tried; those that cannot work are left out."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from omnidrop.errors import UsageError
from omnidrop.evaluation.calibrate.trials import Fields
from omnidrop.evaluation.records import key_of
from omnidrop.files import plain
from omnidrop.pruning.registry import get_method, methods
from omnidrop.tokens import Kind, TokenMap

Ranges = Mapping[str, tuple[Any, ...]]

DEFAULTS: Fields = {}


def synthetic_clip() -> TokenMap:
    """Return the tokens of a clip of 8 chunks, each with 200 video and 50 audio tokens."""
    chunks, video_tokens, audio_tokens, rows, columns = 8, 200, 50, 10, 10
    place = torch.arange(chunks * (video_tokens + audio_tokens))
    chunk, within = place // (video_tokens + audio_tokens), place % (video_tokens + audio_tokens)
    video = within < video_tokens
    per_grid = rows * columns
    grids = video_tokens // per_grid * chunk + within // per_grid
    cells = torch.stack((grids, within % per_grid // columns, within % columns), 1)
    audio = audio_tokens * chunk + within - video_tokens
    none = -torch.ones_like(place)
    grid = torch.where(video[:, None], cells, torch.stack((audio, none, none), 1))
    return TokenMap(
        kind=torch.where(video, Kind.VIDEO, Kind.AUDIO).to(torch.int8),
        chunk=chunk.to(torch.int32),
        grid=grid.to(torch.int32),
    )


def ranges_of(
    method: str, given: Ranges | None = None, *, only: bool = False
) -> dict[str, tuple[Any, ...]]:
    """Return the values to try for each field of a method.

    They come from `Method.tunable`; `given` overrides them, or replaces them with `only`.

    Raises
    ------
    UsageError
        If the method is unknown or there is nothing to try.
    """
    known = get_method(method).settings()
    found = {**({} if only else methods()[method].tunable()), **(given or {})}
    for name, values in found.items():
        if name == "budget" or name not in known or not values:
            names = ", ".join(key for key in known if key != "budget")
            raise UsageError(f"{name!r} of {method} cannot be tuned.", hint=f"Known: {names}.")
    if not found:
        raise UsageError(
            f"{method} declares nothing to tune.",
            hint="Name values to try: --try NAME=VALUE,VALUE",
        )
    return found


@dataclass
class Grid:
    """The settings of a method that can be tried.

    Settings that the method refuses, or that cannot reach a budget on a synthetic clip of 2,000
    tokens, are left out. A refusal on a real clip is handled when it occurs.

    Parameters
    ----------
    method : str
    ranges : mapping
        Values by field.
    budgets : tuple of float
    layers : int
        Depth of the model.
    """

    method: str
    ranges: Ranges
    budgets: tuple[float, ...]
    layers: int

    def __post_init__(self) -> None:
        self._clip = synthetic_clip()

    def draw(self, count: int, seed: int) -> list[Fields]:
        """Return the defaults, then distinct draws from the grid; fewer if it has no more."""
        found: list[Fields] = [DEFAULTS]
        seen = {self._effect(DEFAULTS)}
        size = math.prod(len(values) for values in self.ranges.values())
        for place in random.Random(seed).sample(range(size), min(size, 50 * count)):
            if len(found) == count:
                break
            fields = {}
            for name, values in self.ranges.items():
                place, step = divmod(place, len(values))
                fields[name] = values[step]
            self._take(fields, found, seen)
        return found

    def neighbours(self, fields: Fields) -> list[Fields]:
        """Return the settings that differ by one step in one field."""
        own = get_method(self.method, **fields).settings()
        found: list[Fields] = []
        seen = {self._effect(fields)}
        for name, values in self.ranges.items():
            here = [i for i, value in enumerate(values) if _same(value, own[name])]
            near = [here[0] - 1, here[0] + 1] if here else [0, len(values) - 1]
            for place in near:
                if 0 <= place < len(values):
                    self._take({**fields, name: values[place]}, found, seen)
        return found

    def _take(self, fields: Fields, found: list[Fields], seen: set[str]) -> None:
        """Add settings that can be tried and are new, without fields at their defaults."""
        usual = get_method(self.method).settings()
        fields = {name: value for name, value in fields.items() if not _same(value, usual[name])}
        try:
            effect = self._effect(fields)
            if effect in seen:
                return
            seen.add(effect)
            for budget in self.budgets:
                method = get_method(self.method, **{**fields, "budget": budget})
                method.plan(self._clip, self.layers)
        except UsageError:
            return
        found.append(fields)

    def _effect(self, fields: Fields) -> str:
        """Return a key of the complete settings, defaults filled in."""
        return key_of(get_method(self.method, **fields).settings())


def _same(one: Any, other: Any) -> bool:
    return bool(plain(one) == plain(other))
