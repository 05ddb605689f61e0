"""Whether two ways of naming a model load the same one: the question a warm model is asked."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from omnidrop.models.locations import Location, find
from omnidrop.options import LoadOptions


@dataclass(frozen=True)
class ModelKey:
    """What a loaded model is: equal keys load alike and are reported alike.

    Attributes
    ----------
    name : str
        As reports show it.
    folder : Path
        Of the checkpoint, without links.
    device, dtype : str
        As they are chosen on this machine.
    quantize, positions : str or None
    attention : str
    """

    name: str
    folder: Path
    device: str
    dtype: str
    quantize: str | None
    attention: str
    positions: str | None

    def difference(self, other: ModelKey) -> str:
        """Return the first field that differs from another key's, in words; "" if none does."""
        if (self.name, self.folder) != (other.name, other.folder):
            return f"it is {other.name}, not {self.name}"
        for field in ("device", "dtype", "quantize", "attention", "positions"):
            mine, others = getattr(self, field), getattr(other, field)
            if mine != others:
                return f"its {field} is {others or 'none'}, not {mine or 'none'}"
        return ""


def model_key(options: LoadOptions, location: Location | None = None) -> ModelKey:
    """Return what these options load on this machine; nothing is loaded or downloaded.

    Parameters
    ----------
    options : LoadOptions
    location : Location, optional
        Of the model, if it is known.

    Raises
    ------
    ModelError
        If the model is not on this machine, or the device is not.
    UsageError
        If the family has no such positions.
    """
    from omnidrop.models.loading import ATTENTION, pick_device, pick_dtype, pick_positions

    found = location or find(options.model, offline=True)
    device = pick_device(options.device)
    return ModelKey(
        name=found.name,
        folder=found.folder.resolve(),
        device=str(device),
        dtype=str(pick_dtype(options, found, device)).removeprefix("torch."),
        quantize=options.quantize,
        attention=ATTENTION[options.attention],
        positions=pick_positions(options, found),
    )


def pinned(options: LoadOptions, location: Location) -> LoadOptions:
    """Return options that load this model wherever and whenever they are used.

    A folder is named from the root, and in place of "none in particular" stands what was found.
    """
    name = options.model
    if name is None:
        return replace(options, model=location.name)
    if os.path.isdir(os.path.expanduser(name)) and not location.demo:
        return replace(options, model=os.path.abspath(os.path.expanduser(name)))
    if location.demo and location.name != name.lower():  # the demo model, named by its folder
        return replace(options, model=os.path.abspath(os.path.expanduser(name)))
    return options


def stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of the files of a checkpoint, by which a change shows."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                status = entry.stat()
                found.append((entry.name, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
