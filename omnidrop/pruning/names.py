"""Names of methods and of their presets, known without importing a method or torch.

A shell that completes `--method` asks for them at every key; `registry` makes the methods.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

#: Entry points of methods in other packages.
GROUP = "omnidrop.methods"

#: Where each of our methods is defined.
BUILT_IN = {
    "apack": "omnidrop.pruning.methods.apack:APack",
    "contextguard": "omnidrop.pruning.methods.contextguard:ContextGuard",
    "dash": "omnidrop.pruning.methods.dash:Dash",
    "divprune": "omnidrop.pruning.methods.divprune:DivPrune",
    "dycoke": "omnidrop.pruning.methods.dycoke:DyCoke",
    "echoingpixels": "omnidrop.pruning.methods.echoingpixels:EchoingPixels",
    "evs": "omnidrop.pruning.methods.evs:Evs",
    "fastv": "omnidrop.pruning.methods.fastv:FastV",
    "none": "omnidrop.pruning.method:Method",
    "omnidrop": "omnidrop.pruning.methods.omnidrop:OmniDrop",
    "omnidrop-auto": "omnidrop.pruning.methods.auto:OmniDropAuto",
    "omnifocus": "omnidrop.pruning.methods.omnifocus:OmniFocus",
    "omnipack": "omnidrop.pruning.methods.omnipack:OmniPack",
    "omniroute": "omnidrop.pruning.methods.omniroute:OmniRoute",
    "omnisift": "omnidrop.pruning.methods.omnisift:OmniSift",
    "omnizip": "omnidrop.pruning.methods.omnizip:OmniZip",
    "pyramiddrop": "omnidrop.pruning.methods.pyramiddrop:PyramidDrop",
    "random": "omnidrop.pruning.methods.random:Random",
    "seats": "omnidrop.pruning.methods.seats:Seats",
    "sparsevlm": "omnidrop.pruning.methods.sparsevlm:SparseVLM",
    "uniform": "omnidrop.pruning.methods.uniform:Uniform",
    "visionzip": "omnidrop.pruning.methods.visionzip:VisionZip",
}

#: What is written behind a method, METHOD@NAME, and splits its budget.
WRAPPERS = {"omnidelta": "omnidrop.pruning.methods.omnidelta:OmniDelta"}

#: Published settings of our methods; `registry.presets` makes them.
PRESETS = (
    "apack-25",
    "apack-35",
    "dash-29",
    "dycoke-p70",
    "omnifocus-25",
    "omnifocus-35",
    "omnipack-10",
    "omnipack-15",
    "omnipack-20",
    "omnipack-25",
    "omnizip-35",
    "omnizip-45",
    "paper-3b-20",
    "paper-3b-30",
    "paper-7b-20",
    "paper-7b-30",
    "pyramiddrop-paper",
    "scaled-30b-20",
    "scaled-30b-30",
    "seats-10",
    "seats-15",
    "seats-25",
    "seats-35",
    "sparsevlm-published",
)


def method_names() -> list[str]:
    """Return every known name, sorted; imports no method."""
    return sorted(BUILT_IN | added())


def is_composed(name: str) -> bool:
    """Return whether a name joins others: ENTRY+LAYERS, ENTRY+LAYERS@SCHEDULE, METHOD@WRAPPER."""
    return "+" in name or "@" in name


def added() -> dict[str, EntryPoint]:
    """Return the methods that installed packages offer; a name of ours stays ours."""
    ours = BUILT_IN.keys() | WRAPPERS.keys()
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in ours}
