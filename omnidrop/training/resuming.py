"""What a training needs to go on where it stopped: one safetensors file, written in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omnidrop.errors import UsageError
from omnidrop.files import whole_file

#: Name of the file in a training's folder; gone when the training is complete.
STATE = "unfinished.safetensors"

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Progressed:
    """How far a training is.

    Attributes
    ----------
    step : int
        Steps that are done.
    before : dict
        What was measured before the first one.
    """

    step: int
    before: dict[str, Any]


def keep(
    folder: Path,
    learned: Mapping[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    setup: Mapping[str, Any],
    progressed: Progressed,
) -> None:
    """Write the state of a training.

    Parameters
    ----------
    folder : Path
        It exists.
    learned : mapping
        Every weight that is trained, by name.
    optimiser : Optimizer
        AdamW over these weights.
    setup : mapping
        What must be the same when the training goes on; strict JSON.
    progressed : Progressed
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for name, weight in learned.items():
        tensors[f"weight/{name}"] = weight.detach().cpu().contiguous()
        for moment in _MOMENTS:
            value = optimiser.state.get(weight, {}).get(moment)
            if value is not None:
                tensors[f"{moment}/{name}"] = value.detach().cpu().contiguous()
    told = {
        "step": str(progressed.step),
        "before": json.dumps(progressed.before),
        "setup": json.dumps(setup, sort_keys=True),
    }
    with whole_file(folder / STATE, force=True) as draft:
        save_file(tensors, draft, metadata=told)


def go_on(
    folder: Path,
    learned: Mapping[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    setup: Mapping[str, Any],
) -> Progressed | None:
    """Read the state of a training into its weights and its optimiser; None if there is none.

    Parameters
    ----------
    folder, learned, optimiser, setup
        As for `keep`.

    Raises
    ------
    UsageError
        If the training in the folder was begun in another way, or its file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / STATE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            begun = json.loads(told["setup"])
            _check_same(begun, json.loads(json.dumps(setup)), folder)
            progressed = Progressed(int(told["step"]), json.loads(told["before"]))
            names = set(file.keys())
            with torch.no_grad():
                for name, weight in learned.items():
                    weight.copy_(file.get_tensor(f"weight/{name}"))
                    found = {m: f"{m}/{name}" for m in _MOMENTS if f"{m}/{name}" in names}
                    if len(found) == len(_MOMENTS):
                        moments = {m: file.get_tensor(key) for m, key in found.items()}
                        optimiser.state[weight] = {
                            m: value if m == "step" else value.to(weight.device)
                            for m, value in moments.items()
                        }
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"The unfinished training is damaged ({' '.join(str(error).split())[:200]}).",
            path=path,
            hint="Add --force to begin anew.",
        ) from error
    return progressed


def _check_same(begun: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    for name in sorted(begun.keys() | wanted.keys()):
        if begun.get(name) != wanted.get(name):
            raise UsageError(
                f"The training in it was begun with other settings ({name}: {begun.get(name)}, "
                f"not {wanted.get(name)}).",
                path=folder,
                hint="Go on with those, name another --out, or add --force to begin anew.",
            )
