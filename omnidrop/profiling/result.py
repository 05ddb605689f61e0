"""Result of a profile: every stage of a pruned run, compared with the unpruned control.

Frozen dataclasses, and the arithmetic that makes measured stages comparable.
`omnidrop.profiling.measure` does the measuring.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from omnidrop.report.trace import Stage, Trace
from omnidrop.stages import StageName
from omnidrop.tokens import TokenMap

SCHEMA = "omnidrop.profile/1"

#: Lines that code refers to by name.
PREFILL = "LLM prefill"
SELECTION = "relevance and selection"
FURTHER = "further tokens"
UNACCOUNTED = "not accounted"
#: Label of the run that drops nothing.
CONTROL = "none"

#: Line of a profile -> stages of the engine that are counted in it.
LINES: dict[str, tuple[str, ...]] = {
    "open": (StageName.OPEN,),
    "seek and decode": (StageName.FRAMES,),
    "resize and patches": (StageName.RESIZE, StageName.PATCHES),
    "decode sound": (StageName.SOUND,),
    "log-mel": (StageName.LOG_MEL,),
    "waiting for sound": (StageName.WAITING_FOR_SOUND,),
    "audio tower": (StageName.AUDIO_TOWER,),
    "waiting for frames": (StageName.WAITING_FOR_FRAMES,),
    "vision tower": (StageName.VISION_TOWER,),
    "prompt": (StageName.PROMPT,),
    "entry reduction": (StageName.ENTRY,),
    PREFILL: (StageName.PREFILL,),
    SELECTION: (StageName.SELECTION,),
    "choose tokens": (StageName.ANSWER,),
    FURTHER: (StageName.DECODE,),
    "detokenise": (StageName.DETOKENISE,),
}
_LINE_OF = {stage: line for line, stages in LINES.items() for stage in stages}
#: Stages whose parts are separate lines; the remainder is the stage's own line.
_SPLIT = ("frames", "sound", "answer")


@dataclass(frozen=True)
class Timing:
    """Seconds of one quantity, measured several times.

    Attributes
    ----------
    median, low, high : float
        Seconds; low is the fastest, high the slowest.
    samples : tuple of float
        All of them, in the order measured.
    """

    median: float
    low: float
    high: float
    samples: tuple[float, ...]

    @staticmethod
    def of(samples: Iterable[float]) -> Timing:
        """Summarise at least one sample."""
        kept = tuple(samples)
        return Timing(statistics.median(kept), min(kept), max(kept), kept)


@dataclass(frozen=True)
class StageStat:
    """One line of a run.

    Attributes
    ----------
    name : str
        One of `LINES`, "not accounted", or a stage's own name if it is newer than this table.
    seconds : Timing
    within : str or None
        The line this one is part of.
    overlapped : bool
        True if it ran in parallel to other stages, in a decoder thread: its seconds are in no sum.
    flops : float or None
        FLOPs by the cost model; None if it does not cover this stage.
    flops_per_second : float or None
        `flops` over the median.
    speedup : float or None
        The control's median over this one's.
    predicted : float or None
        The control's `flops` over this one's.
    achieved : float or None
        `speedup` over `predicted`: 1 is all that the FLOPs promise.
    host_peak, device_peak : int or None
        Peak bytes during it, from a separate pass; None if unknown, and for parts that are timed
        inside another stage.
    """

    name: str
    seconds: Timing
    within: str | None = None
    overlapped: bool = False
    flops: float | None = None
    flops_per_second: float | None = None
    speedup: float | None = None
    predicted: float | None = None
    achieved: float | None = None
    host_peak: int | None = None
    device_peak: int | None = None


@dataclass(frozen=True)
class RunProfile:
    """One method at one budget.

    Attributes
    ----------
    label : str
        "none" for the control, else like "omnidrop 0.2".
    method : str
    budget, realised : float
        As asked, and as kept.
    stages : tuple of StageStat
    total : Timing
        From before the file is opened to the end of the answer, by a clock outside the stages; the
        lines that are neither overlapped nor part of another add up to it.
    ttft : Timing
        To the first token, opening the file included.
    further : Timing or None
        Seconds for each further token; None if the answer is one token.
    ttft_speedup : float
        The control's median over this one's.
    answer : str
    same_answer : bool
        Whether its tokens are those of the control.
    kl : float
        KL(unpruned || pruned) of the first token's distribution, in nats.
    trace : Trace
        Of one timed run: kept tokens per layer, chunk and modality, and every setting; with the
        survivors of each layer.
    tokens : TokenMap or None
        What each token of the prompt is, for placing the survivors; not in the JSON document.
    """

    label: str
    method: str
    budget: float
    realised: float
    stages: tuple[StageStat, ...]
    total: Timing
    ttft: Timing
    further: Timing | None
    ttft_speedup: float
    answer: str
    same_answer: bool
    kl: float
    trace: Trace
    tokens: TokenMap | None = field(default=None, repr=False, compare=False)

    def stage(self, name: str) -> StageStat | None:
        """Return a line by name."""
        return next((s for s in self.stages if s.name == name), None)


@dataclass(frozen=True)
class Profile:
    """The control and every run, on one clip and one question.

    Attributes
    ----------
    clip, question : str
    model : dict
        As in `Trace.model`.
    machine : dict
        Device, its name, threads, and FLOP/s of a large matrix product there (`matmul`).
    repeats, warmup : int
        Timed and untimed rounds; in each, every run takes its turn.
    control : RunProfile
        Nothing dropped.
    runs : tuple of RunProfile
    reading : tuple of StageStat
        Decoding alone, video and then audio. In the runs the same work takes longer, because it
        shares the processors with other stages.
    notices : tuple of str
    """

    clip: str
    question: str
    model: dict[str, Any]
    machine: dict[str, Any]
    repeats: int
    warmup: int
    control: RunProfile
    runs: tuple[RunProfile, ...]
    reading: tuple[StageStat, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[RunProfile, ...]:
        """The control first, then the runs."""
        return (self.control, *self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, ready for JSON, `schema` first; survivors are left out."""
        lean = replace(self, control=_lean(self.control), runs=tuple(map(_lean, self.runs)))
        document = asdict(lean)
        for run in (document["control"], *document["runs"]):
            del run["tokens"]
        return {"schema": SCHEMA, **document}


def _lean(run: RunProfile) -> RunProfile:
    return replace(run, trace=replace(run.trace, survivors=()), tokens=None)


@dataclass(frozen=True)
class Line:
    """One line of one turn, before the turns are summarised."""

    seconds: float
    within: str | None = None
    overlapped: bool = False


def lines(stages: Sequence[Stage], total: float) -> dict[str, Line]:
    """Turn the stages of one answer into lines that add up.

    Parameters
    ----------
    stages : sequence of Stage
        As a Trace has them.
    total : float
        Seconds of the whole answer, by a clock outside the stages.

    Returns
    -------
    dict of Line by name
        In the order of `LINES`, then unknown stages, then "not accounted".
    """
    by_name = {stage.name: stage for stage in stages}
    found: dict[str, Line] = {}
    for stage in stages:
        seconds, parent = stage.seconds, by_name.get(stage.within or "")
        if stage.name in _SPLIT:
            seconds -= sum(s.seconds for s in stages if s.within == stage.name)
        split = parent is not None and parent.name in _SPLIT
        overlapped = stage.overlapped or (split and parent is not None and parent.overlapped)
        name = _LINE_OF.get(stage.name, stage.name)
        within = None if parent is None or split else _LINE_OF.get(parent.name, parent.name)
        before = found.get(name)
        if before is not None:
            seconds += before.seconds
        found[name] = Line(seconds, within, overlapped)
    summed = sum(line.seconds for line in found.values() if summable(line))
    ordered = {name: found[name] for name in LINES if name in found}
    ordered |= {name: line for name, line in found.items() if name not in LINES}
    return ordered | {UNACCOUNTED: Line(total - summed)}


def unique_labels(labels: Sequence[str]) -> list[str]:
    """Number repeated labels, so that all differ from each other and from the control's."""
    found: list[str] = []
    for label in labels:
        name, number = label, 1
        while name in (CONTROL, *found):
            number += 1
            name = f"{label} ({number})"
        found.append(name)
    return found


def summable(line: Line | StageStat) -> bool:
    """Whether a line is neither part of another nor parallel to others."""
    return line.within is None and not line.overlapped


def compared(stage: StageStat, control: StageStat | None) -> StageStat:
    """Return a line with its ratios to the control's."""
    rate = stage.flops / stage.seconds.median if stage.flops and stage.seconds.median > 0 else None
    speedup = predicted = None
    if control is not None and stage.seconds.median > 0 and not stage.overlapped:
        speedup = control.seconds.median / stage.seconds.median
        if control.flops and stage.flops:
            predicted = control.flops / stage.flops
    achieved = speedup / predicted if speedup is not None and predicted else None
    return replace(
        stage, flops_per_second=rate, speedup=speedup, predicted=predicted, achieved=achieved
    )


def stage_memory(name: str, peaks: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the host's and the device's peak of a line: the highest of its stages."""
    parts = [peaks[s] for s in LINES.get(name, (name,)) if s in peaks]
    host = [p.host for p in parts if p.host is not None]
    device = [p.device for p in parts if p.device is not None]
    return max(host, default=None), max(device, default=None)
