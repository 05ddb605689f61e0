"""What a question about a clip would cost, without asking it: for a slider of the budget."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from omnidrop.models.unloaded import Unloaded, describe
from omnidrop.profiling.estimate import Estimate, estimate
from omnidrop.profiling.machine import matmul_speed
from omnidrop.pruning.method import Method
from omnidrop.serving.asking import method_of
from omnidrop.serving.chat import Wanted, read_wanted
from omnidrop.serving.fields import Fields
from omnidrop.serving.problems import busy
from omnidrop.serving.sources import Source

if TYPE_CHECKING:
    from omnidrop.recommended import Recommended
    from omnidrop.serving.warm import WarmModel

#: Seconds that an estimate waits for its turn.
PATIENCE = 60.0

#: The question of an estimate that names none; its length hardly matters.
QUESTION = "What happens in this clip?"


@dataclass(frozen=True)
class CostRequest:
    """What the cost is asked of."""

    question: str
    wanted: Wanted


def read_cost_request(document: Any) -> CostRequest:
    """Read a request: `question`, and the fields of `omnidrop` that matter for the cost.

    Raises
    ------
    Refused
    """
    fields = Fields(document)
    question = fields.text("question") or QUESTION
    for name in ("choices", "evidence", "check", "anyway", "report", "progress"):
        fields.refuse(name, "does not change the estimate; leave it out.", unless=(False,))
    return CostRequest(question, read_wanted(fields, stream=False))


class Costs:
    """Estimates for one model; reads the model's files, and measures the machine, once.

    Parameters
    ----------
    warm : WarmModel
    """

    def __init__(self, warm: WarmModel) -> None:
        self._warm, self._options = warm, warm.options
        self._guard = threading.Lock()
        self._known: tuple[Unloaded, float] | None = None

    def of(self, source: Source, request: CostRequest, recommended: Recommended) -> dict[str, Any]:
        """Return the cost of a question about a clip.

        Parameters
        ----------
        source : Source
        request : CostRequest
        recommended : Recommended
            The model's, for requests that name no method.

        Raises
        ------
        OmniDropError
            As `omnidrop.profiling.estimate.estimate`.
        """
        method = method_of(recommended, request.wanted) or method_of(
            recommended, Wanted(budget=recommended.budget)
        )
        assert method is not None
        known, speed = self._machine()
        found = estimate(
            source.path,
            request.question,
            [method],
            model=self._options,
            clip=request.wanted.clip,
            tflops=speed / 1e12,
            known=known,
        )
        return _document(found, method)

    def _machine(self) -> tuple[Unloaded, float]:
        """Return what is known of the model, and the speed of a large matrix product in FLOP/s.

        Both are found out in the model's turn: reading a model's shapes sets the default dtype of
        the whole process for a moment, which a question beside it would compute in, and a question
        beside a measurement would make the machine look slow.
        """
        with self._guard:
            if self._known is None:
                with self._warm.try_turn(PATIENCE) as turn:
                    if turn is None:
                        raise busy()
                    known = describe(self._options)
                    device, dtype = torch.device(known.device), getattr(torch, known.dtype)
                    self._known = known, matmul_speed(device, dtype)
            return self._known


def _document(found: Estimate, method: Method) -> dict[str, Any]:
    run = found.runs[0] if found.runs else found.control
    tokens = found.tokens
    kept = sum(run.counts) / len(run.counts)

    def cost(one: Any) -> dict[str, Any]:
        encoders = found.flops_vision + found.flops_audio
        return {
            "seconds": one.seconds,
            "memory": one.peak,
            "kv_cache": one.kv_cache,
            "prefill_tflops": one.flops_prefill / 1e12,
            "encoder_tflops": encoders / 1e12,
        }

    return {
        "object": "clip.estimate",
        "method": method.name,
        "budget": float(method.budget),
        "tokens": {"text": tokens.text, "audio": tokens.audio, "video": tokens.video},
        "kept": round(kept, 1),
        "share": run.realised,
        "kept_in_layers": list(run.counts),
        **cost(run),
        "unpruned": cost(found.control),
        "notices": list(found.notices),
    }
