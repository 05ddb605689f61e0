"""Limits that a user states instead of a budget.

    with model.open("clip.mp4") as clip:
        answer = clip.ask("What plays?", limits=omnidrop.Limits(latency=2.0))
    print(answer.trace.notices[-1])      # --fit-latency 2 s: budget 0.18, expected 1.9 s.

`omnidrop.profiling.fit` finds the budget. This module imports nothing heavy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnidrop.errors import UsageError
from omnidrop.format import rounded_duration, rounded_size

if TYPE_CHECKING:
    from omnidrop.clip.clip import Clip
    from omnidrop.clip.options import ClipOptions
    from omnidrop.engine.model import Model
    from omnidrop.engine.session import Session
    from omnidrop.models.adapter import Adapter
    from omnidrop.pruning.method import Method
    from omnidrop.stages import Progress
    from omnidrop.tokens import Prompt


@dataclass(frozen=True)
class Limits:
    """What an answer may take; fulfils `omnidrop.engine.session.BudgetChooser`.

    Parameters
    ----------
    latency : float, optional
        Seconds to the first token, opening and encoding the clip included.
    memory : float, optional
        Bytes held at once: in the GPU's own memory if the model is there, else by the process.
    """

    latency: float | None = None
    memory: float | None = None

    def __post_init__(self) -> None:
        if self.latency is None and self.memory is None:
            raise UsageError("Limits need a latency or a memory.", hint="Like Limits(latency=2).")
        for name, value in (("latency", self.latency), ("memory", self.memory)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(
                    f"A {name} of {value} is not valid.", hint="Give a number above 0."
                )

    def choose(
        self, adapter: Adapter, prompt: Prompt, method: Method, elapsed: Callable[[], float]
    ) -> tuple[Method, str]:
        """Return the method at the largest budget within the limits, and a notice about it.

        Parameters
        ----------
        adapter : Adapter
        prompt : Prompt
            Of the encoded clip and the question.
        method : Method
            Its own budget is ignored.
        elapsed : callable
            Returns the seconds that the answer has taken so far.

        Raises
        ------
        BudgetError
            If no budget of the method meets the limits.
        """
        from omnidrop.profiling.fit import choose_budget

        return choose_budget(adapter, prompt, method, self, elapsed)

    def measure(self, adapter: Adapter, method: Method, progress: Progress | None = None) -> None:
        """Measure the method's prefill on this machine where time is limited, before it counts.

        Parameters
        ----------
        adapter : Adapter
        method : Method
            The one whose budget is chosen.
        progress : Progress, optional
        """
        if self.latency is None:
            return
        from omnidrop.profiling.prefill_speed import prefill_speed

        if progress is not None:
            progress("measure the speed", 0, None)
        prefill_speed(adapter, method)

    def open(
        self,
        model: Model,
        source: str | os.PathLike[str] | Clip,
        question: str,
        method: Method,
        *,
        clip: ClipOptions,
        pixels: bool,
        fps: bool,
        system: str | None = None,
    ) -> Session:
        """Open a session on a clip, with pixels or rate lowered until an answer fits the limits.

        Parameters
        ----------
        model : Model
        source : path-like or Clip
            A clip is not probed again.
        question : str
            The first one to be asked.
        method : Method
            Its own budget is ignored.
        clip : ClipOptions
            What is tried first.
        pixels, fps : bool
            What may be lowered.
        system : str, optional
        """
        if not (pixels or fps):
            return model.open(source, clip)
        from omnidrop.profiling.fit import fit_sampling

        found, notice = fit_sampling(
            model.adapter,
            source,
            question,
            method,
            self,
            clip=clip,
            pixels=pixels,
            fps=fps,
            system=system,
        )
        if notice is None:
            return model.open(source, clip)
        return model.open(source, found, notices=[notice])

    def __str__(self) -> str:
        parts = [] if self.latency is None else [f"--fit-latency {rounded_duration(self.latency)}"]
        parts += [] if self.memory is None else [f"--fit-memory {rounded_size(self.memory)}"]
        return " ".join(parts)
