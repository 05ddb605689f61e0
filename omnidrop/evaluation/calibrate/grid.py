"""Which settings of a method can be tried: a grid of values, what cannot work left out."""

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
from omnidrop.prompt import Kind, TokenMap
from omnidrop.pruning.registry import get_method

Ranges = Mapping[str, tuple[Any, ...]]

DEFAULTS: Fields = {}


def stand_in() -> TokenMap:
    """Make the tokens of a clip of 8 chunks, each 200 tokens of video and 50 of audio."""
    place = torch.arange(8 * 250)
    within, chunk = place % 250, place // 250
    video = within < 200
    grid = torch.stack((2 * chunk + within // 100, within % 100 // 10, within % 10), 1)
    grid[~video] = torch.stack((50 * chunk + within - 200, -torch.ones_like(place)), 1)[~video][
        :, [0, 1, 1]
    ]
    return TokenMap(
        kind=torch.where(video, Kind.VIDEO, Kind.AUDIO).to(torch.int8),
        chunk=chunk.to(torch.int32),
        time=(2.0 * chunk).float(),
        grid=grid.to(torch.int32),
    )


def ranges_of(
    method: str, given: Ranges | None = None, *, only: bool = False
) -> dict[str, tuple[Any, ...]]:
    """Return the values to try for each field of a method.

    A method says them (`Method.tunable`); `given` goes before, or stands alone.

    Raises
    ------
    UsageError
        If the method is unknown or nothing is to be tried.
    """
    made = get_method(method)
    known = made.settings()
    found = {**({} if only else made.tunable()), **(given or {})}
    for name, values in found.items():
        if name == "budget" or name not in known or not values:
            names = ", ".join(key for key in known if key != "budget")
            raise UsageError(f"{name!r} of {method} cannot be tuned.", hint=f"Known: {names}.")
    if not found:
        raise UsageError(
            f"Nothing of {method} is known to be tuned.",
            hint="Name values to try: --try NAME=VALUE,VALUE",
        )
    return found


@dataclass
class Grid:
    """The settings of a method that can be tried.

    Those that the method refuses, or that cannot reach a budget on a stand-in clip of 2,000 tokens,
    are left out; a real clip's refusal is heeded when it comes.

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
        self._clip = stand_in()

    def draw(self, count: int, seed: int) -> list[Fields]:
        """Return the defaults, then draws from the grid, none twice; fewer if it has no more."""
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
        """Return the settings one step along one field of the grid away."""
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
        """Add settings that can be tried and are not there yet, what is the default left out."""
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
        """Return a name for what settings come to, defaults filled in."""
        return key_of(get_method(self.method, **fields).settings())


def _same(one: Any, other: Any) -> bool:
    return bool(plain(one) == plain(other))
