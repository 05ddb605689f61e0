"""Ask questions about local video, audio included, with layer-wise token dropping.

    import omnidrop
    model = omnidrop.load("demo")
    with model.open("clip.mp4") as clip:
        answer = clip.ask("What instrument plays first?", method=omnidrop.OmniDrop(budget=0.3))
    print(answer.text, answer.trace.kept_per_layer)

Names are imported when first used: `import omnidrop` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load": "omnidrop.engine.model",
    "Model": "omnidrop.engine.model",
    "Session": "omnidrop.engine.session",
    "Conversation": "omnidrop.engine.conversation",
    "LoadOptions": "omnidrop.options",
    "GenerateOptions": "omnidrop.options",
    "ClipOptions": "omnidrop.clip.options",
    "open_clip": "omnidrop.clip.clip",
    "probe": "omnidrop.clip.probe",
    "Answer": "omnidrop.report.trace",
    "Limits": "omnidrop.profiling.limits",
    "Trace": "omnidrop.report.trace",
    "Method": "omnidrop.pruning.method",
    "Recommended": "omnidrop.recommended",
    "get_method": "omnidrop.pruning.registry",
    "methods": "omnidrop.pruning.registry",
    "OmniDrop": "omnidrop.pruning.methods.omnidrop",
    "OmniDropAuto": "omnidrop.pruning.methods.auto",
    "FastV": "omnidrop.pruning.methods.fastv",
    "Random": "omnidrop.pruning.methods.random",
    "Uniform": "omnidrop.pruning.methods.uniform",
    "OmniDropError": "omnidrop.errors",
    "OutsideError": "omnidrop.errors",
    "BudgetError": "omnidrop.errors",
    "MediaError": "omnidrop.errors",
    "MemoryShortError": "omnidrop.errors",
    "ModelError": "omnidrop.errors",
    "UsageError": "omnidrop.errors",
}

__all__ = [
    "Answer",
    "BudgetError",
    "ClipOptions",
    "Conversation",
    "FastV",
    "GenerateOptions",
    "Limits",
    "LoadOptions",
    "MediaError",
    "MemoryShortError",
    "Method",
    "Model",
    "ModelError",
    "OmniDrop",
    "OmniDropAuto",
    "OmniDropError",
    "OutsideError",
    "Random",
    "Recommended",
    "Session",
    "Trace",
    "Uniform",
    "UsageError",
    "__version__",
    "get_method",
    "load",
    "methods",
    "open_clip",
    "probe",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'omnidrop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from omnidrop.clip.clip import open_clip
    from omnidrop.clip.options import ClipOptions
    from omnidrop.clip.probe import probe
    from omnidrop.engine.conversation import Conversation
    from omnidrop.engine.model import Model, load
    from omnidrop.engine.session import Session
    from omnidrop.errors import (
        BudgetError,
        MediaError,
        MemoryShortError,
        ModelError,
        OmniDropError,
        OutsideError,
        UsageError,
    )
    from omnidrop.options import GenerateOptions, LoadOptions
    from omnidrop.profiling.limits import Limits
    from omnidrop.pruning.method import Method
    from omnidrop.pruning.methods.auto import OmniDropAuto
    from omnidrop.pruning.methods.fastv import FastV
    from omnidrop.pruning.methods.omnidrop import OmniDrop
    from omnidrop.pruning.methods.random import Random
    from omnidrop.pruning.methods.uniform import Uniform
    from omnidrop.pruning.registry import get_method, methods
    from omnidrop.recommended import Recommended
    from omnidrop.report.trace import Answer, Trace
