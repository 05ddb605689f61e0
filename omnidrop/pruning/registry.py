"""Every method by name: ours, those that other packages offer, and compositions of them.

"uniform+omnidrop" is a composition: the entry choice of one method, the layers of another; see
`compose.Compose`. "uniform@omnidelta" is a method whose budget another one splits; see
`methods.omnidelta.OmniDelta`.

To add a method here, add one line to `names.BUILT_IN`. Another package adds its own through an
entry point:

    [project.entry-points."omnidrop.methods"]
    mine = "my_package.mine:Mine"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

from omnidrop.errors import UsageError, did_you_mean
from omnidrop.pruning.method import Method
from omnidrop.pruning.names import BUILT_IN, WRAPPERS, added, is_composed, method_names


def methods() -> dict[str, type[Method]]:
    """Return every method's class by name, sorted; imports them all."""
    return {name: _load(name) for name in method_names()}


def wrappers() -> dict[str, type[Method]]:
    """Return the classes of what is written behind a method, METHOD@NAME, by name."""
    return {name: _imported(place) for name, place in WRAPPERS.items()}


def get_method(name: str, **settings: Any) -> Method:
    """Make a method by name.

    Parameters
    ----------
    name : str
        One of `method_names()`, or a composition: "ENTRY+LAYERS" or "ENTRY+LAYERS@SCHEDULE". Either
        may end in "@omnidelta", which splits its budget.
    **settings
        Values for its fields. Those of a composition's parts are "entry.NAME", "layers.NAME" and
        "schedule.NAME", or plain where only one part has it; those of a method whose budget is
        split are "method.NAME", or plain.

    Raises
    ------
    UsageError
        Unknown name or field, or a value the method refuses.
    """
    before, at, last = name.rpartition("@")
    if at and last.strip() in WRAPPERS:
        return _wrapped(last.strip(), before.strip(), settings)
    if is_composed(name):
        return _composition(name, settings)
    return _made(_kind(name), name, settings)


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


def _kind(name: str) -> type[Method]:
    """Return a method's class, or raise a `UsageError` that says what was meant."""
    if name in WRAPPERS:
        raise UsageError(
            f"{name!r} splits the budget of another method.",
            hint=f"Write it behind that method: uniform@{name}.",
        )
    if name not in BUILT_IN and name not in added():
        raise UsageError(
            f"There is no method {name!r}.", hint=_closest(name, [*method_names(), *WRAPPERS])
        )
    return _load(name)


def _made(kind: type[Method], name: str, settings: Mapping[str, Any]) -> Method:
    """Make a method, its settings checked by name."""
    known = {field.name: field for field in fields(kind)}
    given = dict(settings)
    for key, value in settings.items():
        if key not in known:
            raise _unknown(kind, name, key, value, list(known))
        # Typed words read "none" as None; a setting that always has a value means the word.
        if value is None and known[key].default is not None:
            given[key] = "none"
    return kind(**given)


def _unknown(
    kind: type[Method], name: str, key: str, value: Any, known: Sequence[str]
) -> UsageError:
    """Explain a setting that a method does not have, or has no longer."""
    if key not in kind.former:
        return UsageError(
            f"Method {name!r} has no setting {key!r}.", hint=_closest(key, list(known))
        )
    word = "none" if value is None else str(value)
    ways = kind.former[key]
    now = ways.get(word) or ", ".join(f"{way} ({old})" for old, way in ways.items())
    return UsageError(
        f"Method {kind.name!r} has no setting {key!r} any more: it is a choice of method.",
        hint=f"Say --method {now}.",
    )


def _wrapped(wrapper: str, inner: str, settings: Mapping[str, Any]) -> Method:
    """Make a method whose budget a wrapper splits; what is no setting of that is the method's."""
    if not inner:
        raise UsageError(f"@{wrapper} names no method.", hint=f"Write it like uniform@{wrapper}.")
    kind = wrappers()[wrapper]
    names = [field.name for field in fields(kind) if field.name != "method"]
    own = {key: value for key, value in settings.items() if key in names}
    rest = {key: value for key, value in settings.items() if key not in names}
    try:
        method = get_method(inner, **{key.removeprefix("method."): rest[key] for key in rest})
    except UsageError as error:
        if not rest:
            raise
        more = f"{error.hint or ''} Those of {wrapper}: {', '.join(names)}."
        raise UsageError(error.what, hint=more.strip()) from error
    return _made(kind, f"{inner}@{wrapper}", {**own, "method": method})


def _composition(name: str, settings: Mapping[str, Any]) -> Method:
    """Make a composition from its name, and give each part its settings."""
    from omnidrop.pruning import compose

    joined, at, third = name.partition("@")
    names = [part.strip() for part in joined.split("+")]
    if len(names) != 2 or not all(names) or (at and not third.strip()):
        raise UsageError(
            f"{name!r} is no composition of methods.",
            hint="Write ENTRY+LAYERS or ENTRY+LAYERS@SCHEDULE, like uniform+omnidrop.",
        )
    called = dict(zip(("entry", "layers"), names, strict=True))
    if at:
        called["schedule"] = third.strip()
    kinds = {part: _kind(method) for part, method in called.items()}
    roles = compose.part_roles(bool(at))
    live = {part: compose.live_fields(kind, roles[part]) for part, kind in kinds.items()}
    own: dict[str, Any] = {}
    given: dict[str, dict[str, Any]] = {part: {} for part in kinds}
    for key, value in settings.items():
        if key in compose.OWN:
            own[key] = value
            continue
        part, dot, field = key.rpartition(".")
        having = [p for p in kinds if field in live[p] and (not dot or p == part)]
        if len(having) == 1:
            given[having[0]][field] = value
        elif having:
            ways = " or ".join(f"{p}.{field}" for p in having)
            raise UsageError(f"Two parts of {name!r} have {field!r}.", hint=f"Say {ways}.")
        else:
            raise _not_there(name, key, value, kinds, live)
    for part, kind in kinds.items():
        own[part] = _made(kind, called[part], given[part])
    return compose.Compose(**own)


def _not_there(
    name: str,
    key: str,
    value: Any,
    kinds: Mapping[str, type[Method]],
    live: Mapping[str, Sequence[str]],
) -> UsageError:
    """Explain a setting that no part of a composition has, or that does nothing there."""
    part, dot, field = key.rpartition(".")
    for kind in kinds.values() if not dot else [kinds[part]] if part in kinds else []:
        if field in kind.former:
            return _unknown(kind, kind.name, field, value, ())
    dead = part in kinds and field in {f.name for f in fields(kinds[part])} - {"budget", "cache"}
    known = ["budget", "cache", "enters", *(f"{p}.{f}" for p in live for f in live[p])]
    if dead:
        return UsageError(
            f"{field!r} of {kinds[part].name!r} does nothing in {name!r}.",
            hint=f"Known: {', '.join(known)}.",
        )
    return UsageError(f"Method {name!r} has no setting {key!r}.", hint=_closest(key, known))


def _load(name: str) -> type[Method]:
    """Import a method's class."""
    if name in BUILT_IN:
        return _imported(BUILT_IN[name])
    point = added()[name]
    try:
        kind: Any = point.load()
    except Exception as error:  # another package's code: anything may come out of it
        raise UsageError(
            f"Method {name!r} from {point.value} cannot be imported: {error}",
            hint="Repair or uninstall the package that offers it.",
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise UsageError(f"{point.value}, offered as method {name!r}, is not a Method.")
    return kind


def _imported(place: str) -> type[Method]:
    """Import one of our classes: "module:Class"."""
    module, _, attribute = place.partition(":")
    kind: type[Method] = getattr(import_module(module), attribute)
    return kind


def _closest(word: str, known: list[str]) -> str:
    """Suggest what was meant, then list what there is."""
    return f"{did_you_mean(word, known)}Known: {', '.join(known)}."


__all__ = ["describe", "get_method", "get_preset", "method_names", "methods", "presets", "wrappers"]
