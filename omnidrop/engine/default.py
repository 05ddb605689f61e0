"""The method of a question that names none: the model's recommended one, where it is worth it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from omnidrop.engine import worth
from omnidrop.engine.encode import Encoded
from omnidrop.errors import BudgetError
from omnidrop.models.adapter import Adapter
from omnidrop.pruning.method import Method, Plan
from omnidrop.pruning.registry import get_method, get_preset
from omnidrop.recommended import Recommended
from omnidrop.tokens import Prompt


def method_of(found: Recommended, budget: float | None = None, *, exact: bool = True) -> Method:
    """Make the method that a model recommends.

    Parameters
    ----------
    found : Recommended
    budget : float, optional
        Another budget than the recommended one.
    exact : bool
        Use presets where there are any; without them the method fits any budget.
    """
    wanted = found.budget if budget is None else budget
    if exact and wanted in found.presets:
        return get_preset(found.presets[wanted])
    return get_method(found.method, budget=wanted, **found.settings)


@dataclass(frozen=True)
class Chosen:
    """The method that runs, and how it came about.

    Attributes
    ----------
    method : Method
    default : dict or None
        What the model recommends and why, if nobody asked for a method; None if somebody did.
    notice : str or None
        What the user should know about it.
    plan : Plan or None
        The method's plan for the prompt, if choosing it took one.
    """

    method: Method
    default: dict[str, Any] | None = None
    notice: str | None = None
    plan: Plan | None = None


def choose(
    adapter: Adapter, method: Method, prompt: Prompt, encoded: Encoded, *, read: bool
) -> Chosen:
    """Choose the method of a question that names none.

    It is the recommended one, or none where that would save less than `worth.LEAST` of the time to
    the first token, or cannot reach its budget on a clip so short. A model that was trained
    for its method (`Recommended.always`) has it in any case, with every token if need be.

    Parameters
    ----------
    adapter : Adapter
    method : Method
        The recommended one (`method_of`).
    prompt : Prompt
    encoded : Encoded
    read : bool
        Whether a file was read.
    """
    default = {
        "method": method.name,
        "budget": float(method.budget),
        "source": adapter.recommended.source,
    }
    info, tokens = adapter.info, prompt.tokens
    if not bool(tokens.av.any()):
        return Chosen(method, default)
    try:
        plan = method.plan(tokens.select(tokens.av), info.text.layers)
    except BudgetError:
        notice = f"Every token was kept: {method.name} cannot drop so many of so short a clip."
        whole = replace(method, budget=1.0) if adapter.recommended.always else Method()
        return Chosen(whole, default, notice)
    if adapter.recommended.always:
        return Chosen(method, default, plan=plan)
    share = worth.saving(info.shapes, adapter.device.type, prompt, encoded, plan.counts, read=read)
    if share >= worth.LEAST:
        return Chosen(method, default | {"saving": round(share, 3)}, plan=plan)
    percent = f"{100 * share:.0f}" if share >= 0.005 else "less than 1"
    return Chosen(
        Method(),
        default | {"saving": round(share, 3)},
        f"Every token was kept: dropping would save {percent} % of the time to the first token.",
    )
