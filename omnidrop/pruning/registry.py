"""Every method by name: ours, and those that other packages offer.

To add a method here, add one line to `_OURS`. Another package adds its own through an entry point:

    [project.entry-points."omnidrop.methods"]
    mine = "my_package.mine:Mine"
"""

from __future__ import annotations

import difflib
from dataclasses import fields
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from omnidrop.errors import UsageError
from omnidrop.pruning.method import Method

GROUP = "omnidrop.methods"

_OURS = {
    "contextguard": "omnidrop.pruning.methods.contextguard:ContextGuard",
    "dash": "omnidrop.pruning.methods.dash:Dash",
    "divprune": "omnidrop.pruning.methods.divprune:DivPrune",
    "dycoke": "omnidrop.pruning.methods.dycoke:DyCoke",
    "fastv": "omnidrop.pruning.methods.fastv:FastV",
    "none": "omnidrop.pruning.method:Method",
    "omnidrop": "omnidrop.pruning.methods.omnidrop:OmniDrop",
    "omnidrop-auto": "omnidrop.pruning.methods.auto:OmniDropAuto",
    "omnizip": "omnidrop.pruning.methods.omnizip:OmniZip",
    "pyramiddrop": "omnidrop.pruning.methods.pyramiddrop:PyramidDrop",
    "random": "omnidrop.pruning.methods.random:Random",
    "seats": "omnidrop.pruning.methods.seats:Seats",
    "sparsevlm": "omnidrop.pruning.methods.sparsevlm:SparseVLM",
    "uniform": "omnidrop.pruning.methods.uniform:Uniform",
    "visionzip": "omnidrop.pruning.methods.visionzip:VisionZip",
}


def method_names() -> list[str]:
    """Return every known name, sorted; imports no method."""
    return sorted(_OURS | _theirs())


def methods() -> dict[str, type[Method]]:
    """Return every method's class by name, sorted; imports them all."""
    return {name: _load(name) for name in method_names()}


def get_method(name: str, **settings: Any) -> Method:
    """Make a method by name.

    Parameters
    ----------
    name : str
        One of `method_names()`.
    **settings
        Values for its fields.

    Raises
    ------
    UsageError
        Unknown name or field, or a value the method refuses.
    """
    if name not in _OURS and name not in _theirs():
        raise UsageError(f"There is no method {name!r}.", hint=_closest(name, method_names()))
    kind = _load(name)
    known = {field.name: field for field in fields(kind)}
    for key, value in settings.items():
        if key not in known:
            raise UsageError(
                f"Method {name!r} has no setting {key!r}.", hint=_closest(key, list(known))
            )
        # Typed words read "none" as None; a setting that always has a value means the word.
        if value is None and known[key].default is not None:
            settings[key] = "none"
    return kind(**settings)


def presets() -> dict[str, Method]:
    """Return every method's presets by name, sorted."""
    found: dict[str, Method] = {}
    for kind in methods().values():
        found |= kind.presets() if hasattr(kind, "presets") else {}
    return dict(sorted(found.items()))


def get_preset(name: str) -> Method:
    """Return a preset by name, or raise a `UsageError` that lists them."""
    known = presets()
    if name not in known:
        raise UsageError(f"There is no preset {name!r}.", hint=_closest(name, list(known)))
    return known[name]


def describe(kind: type[Method]) -> str:
    """Return a method in one sentence: the first line of its docstring."""
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0]


def _theirs() -> dict[str, EntryPoint]:
    """Return the methods that installed packages offer; a name of ours stays ours."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in _OURS}


def _load(name: str) -> type[Method]:
    """Import a method's class."""
    if name in _OURS:
        module, _, attribute = _OURS[name].partition(":")
        kind: Any = getattr(import_module(module), attribute)
        return kind
    point = _theirs()[name]
    try:
        kind = point.load()
    except Exception as error:  # another package's code: anything may come out of it
        raise UsageError(
            f"Method {name!r} from {point.value} cannot be imported: {error}",
            hint="Repair or uninstall the package that offers it.",
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise UsageError(f"{point.value}, offered as method {name!r}, is not a Method.")
    return kind


def _closest(word: str, known: list[str]) -> str:
    """Suggest what was meant, then list what there is."""
    near = difflib.get_close_matches(word, known, n=2, cutoff=0.5)
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{meant}Known: {', '.join(known)}."
