"""Measure every stage, unpruned and pruned, in one process, methods taking turns.

    from omnidrop.profiling.measure import profile
    found = profile(model, "clip.mp4", "What plays first?", [omnidrop.OmniDrop(budget=0.2)])
    print(found.runs[0].ttft.median, found.runs[0].stage("LLM prefill").achieved)

Each turn opens the file again and runs to the end of the answer, so that no stage is left out.
Memory, survivors and the first token's distribution come from one more round that is not timed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.patches import patches
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.frame_stream import add_audio_times, add_video_times
from omnidrop.engine.memory import MemoryWatch, StageMemory
from omnidrop.engine.model import Model
from omnidrop.engine.prefill import Prefilled
from omnidrop.engine.timing import Meter
from omnidrop.errors import BudgetError, UsageError
from omnidrop.models.adapter import ModelInfo
from omnidrop.profiling.machine import machine
from omnidrop.profiling.result import (
    CONTROL,
    FURTHER,
    PREFILL,
    UNACCOUNTED,
    Line,
    Profile,
    RunProfile,
    StageStat,
    Timing,
    compared,
    lines,
    stage_memory,
    unique_labels,
)
from omnidrop.pruning.method import Method
from omnidrop.report.trace import Answer, Trace
from omnidrop.stages import Progress, StageName
from omnidrop.tokens import Prompt, TokenMap


@dataclass
class _Run:
    """What is collected about one method."""

    label: str
    method: Method
    answers: list[Answer] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    lines: list[dict[str, Line]] = field(default_factory=list)
    peaks: dict[str, StageMemory] = field(default_factory=dict)
    survivors: tuple[tuple[int, ...], ...] = ()
    tokens: TokenMap | None = None
    logits: torch.Tensor | None = None

    def add(self, answer: Answer, total: float) -> None:
        """Add one timed turn."""
        self.answers.append(answer)
        self.totals.append(total)
        self.lines.append(lines(answer.trace.stages, total))

    @property
    def trace(self) -> Trace:
        return replace(self.answers[-1].trace, survivors=self.survivors)


def profile(
    model: Model,
    path: str | os.PathLike[str],
    question: str,
    methods: Sequence[Method],
    *,
    labels: Sequence[str] = (),
    clip: ClipOptions | None = None,
    options: GenerateOptions | None = None,
    system: str | None = None,
    repeats: int = 5,
    warmup: int = 1,
    progress: Progress | None = None,
) -> Profile:
    """Measure the unpruned control and every method, taking turns.

    Parameters
    ----------
    model : Model
        As `omnidrop.load` returns it.
    path : path-like
        A local media file.
    question : str
    methods : sequence of Method
        Compared with the control, which is always measured too.
    labels : sequence of str
        Names of the runs; default like "omnidrop 0.2".
    clip : ClipOptions, optional
        Span, rates and limits.
    options : GenerateOptions, optional
    system : str, optional
        System prompt; default the model family's own.
    repeats, warmup : int
        Timed rounds (at least 1), and rounds before them that are not timed.
    progress : callable, optional
        Told (stage, done, total).

    Returns
    -------
    Profile

    Raises
    ------
    UsageError, BudgetError, MediaError, MemoryShortError
        As `Session.ask`; of several methods, one that cannot reach its budget is left out with a
        notice instead.
    """
    if repeats < 1 or warmup < 0:
        raise UsageError(
            f"{repeats} repeats after {warmup} warm-up rounds cannot be measured.",
            hint="Measure at least once.",
        )
    runs = [_Run(CONTROL, Method())]
    runs += map(_Run, unique_labels(labels or [m.label for m in methods]), methods)
    rounds = warmup + repeats + 1
    task = _Task(model, path, question, clip, options or GenerateOptions(), system)
    refused: list[str] = []
    readings: list[dict[str, Line]] = []
    for number in range(rounds):
        if warmup <= number < warmup + repeats:
            readings.append(task.read())
        for run in tuple(runs):
            if progress is not None:
                done = number * len(runs) + runs.index(run)
                progress("profile", float(done), float(rounds * len(runs)))
            try:
                if number == warmup + repeats:
                    task.observe(run)
                else:
                    answer, total = task.ask(run.method)
                    if number >= warmup:
                        run.add(answer, total)
            except BudgetError as error:
                if len(methods) == 1:
                    raise
                runs.remove(run)  # the others are measured all the same
                refused.append(f"{run.label} was not measured: {error}")
    control = _summed(model.info, runs[0], None, runs[0])
    found = tuple(_summed(model.info, run, control, runs[0]) for run in runs[1:])
    trace = control.trace
    return Profile(
        clip=os.fspath(path),
        question=question,
        model=dict(trace.model),
        machine=machine(model.adapter.device, model.adapter.dtype),
        repeats=repeats,
        warmup=warmup,
        control=control,
        reading=tuple(
            StageStat(name, Timing.of(turn[name].seconds for turn in readings))
            for name in readings[0]
            if name != UNACCOUNTED
        ),
        runs=found,
        notices=(*_notices(runs), *refused),
    )


def first_token_kl(unpruned: torch.Tensor, pruned: torch.Tensor) -> float:
    """Return KL(unpruned || pruned) of two rows of logits, in nats."""
    p, q = (row.double().cpu().log_softmax(-1) for row in (unpruned, pruned))
    return max(0.0, float((p.exp() * (p - q)).sum()))


@dataclass(frozen=True)
class _Task:
    """One clip and one question, asked from the closed file each time."""

    model: Model
    path: str | os.PathLike[str]
    question: str
    clip: ClipOptions | None
    options: GenerateOptions
    system: str | None

    def ask(
        self, method: Method, keep: Callable[[Prefilled, Prompt], None] | None = None
    ) -> tuple[Answer, float]:
        """Ask; return the answer and its seconds, by a clock outside all stages."""
        start = time.perf_counter()
        with self.model.open(self.path, self.clip) as session:

            def on_prefill(prefilled: Prefilled) -> None:
                if keep is not None and session.prompt is not None:
                    keep(prefilled, session.prompt)

            answer = session.ask(
                self.question,
                method=method,
                options=self.options,
                system=self.system,
                on_text=lambda piece: None,
                on_prefill=on_prefill,
                reuse=False,  # no further question follows
                anyway=True,  # the costs are the same, and a notice says what the answer is worth
            )
            return answer, time.perf_counter() - start

    def read(self) -> dict[str, Line]:
        """Decode video, then audio, with nothing running in parallel."""
        adapter = self.model.adapter
        meter = Meter(adapter.device)
        with open_clip(self.path, self.clip or ClipOptions(), adapter.media_spec) as clip:
            chunks = clip.frame_chunks()
            while clip.has_video:
                with meter.stage(StageName.FRAMES):
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                with meter.stage(StageName.PATCHES):
                    patches(chunk.frames, clip.spec.video)
            if clip.has_video:
                add_video_times(clip, meter)
            if clip.has_audio:
                with meter.stage(StageName.SOUND):
                    clip.log_mel()
                add_audio_times(clip, meter)
        return lines(meter.stages(), meter.since_start())

    def observe(self, run: _Run) -> None:
        """Ask once more for what would disturb the times."""

        def keep(prefilled: Prefilled, prompt: Prompt) -> None:
            run.logits = prefilled.logits.detach().float().cpu()
            run.tokens = prompt.tokens

        task = replace(self, options=replace(self.options, survivors=True))
        with MemoryWatch(self.model.adapter.device, self.model.adapter) as watch:
            answer, _ = task.ask(run.method, keep)
        run.peaks = watch.peaks
        run.survivors = answer.trace.survivors


def _summed(info: ModelInfo, run: _Run, control: RunProfile | None, unpruned: _Run) -> RunProfile:
    answer, trace = run.answers[-1], run.trace
    steps = len(answer.token_ids) - (answer.stop == "max new tokens")
    flops = _flops(info, trace, steps, run.method.own_layers)
    stages = []
    for name in dict.fromkeys(name for turn in run.lines for name in turn):
        turns = [turn[name] for turn in run.lines if name in turn]
        host, device = stage_memory(name, run.peaks)
        stat = StageStat(
            name=name,
            seconds=Timing.of(turn.seconds for turn in turns),
            within=turns[0].within,
            overlapped=turns[0].overlapped,
            flops=flops.get(name),
            host_peak=host,
            device_peak=device,
        )
        stages.append(compared(stat, control.stage(name) if control is not None else None))
    ttft = Timing.of(a.trace.ttft for a in run.answers)
    rates = [a.trace.tokens_per_second for a in run.answers]
    assert run.logits is not None
    assert unpruned.logits is not None
    return RunProfile(
        label=run.label,
        method=run.method.name,
        budget=float(run.method.budget),
        realised=trace.realised_budget,
        stages=tuple(stages),
        total=Timing.of(run.totals),
        ttft=ttft,
        further=Timing.of(1 / r for r in rates if r) if any(rates) else None,
        ttft_speedup=1.0 if control is None else control.ttft.median / ttft.median,
        answer=answer.text,
        same_answer=answer.token_ids == unpruned.answers[-1].token_ids,
        kl=first_token_kl(unpruned.logits, run.logits),
        trace=trace,
        tokens=run.tokens,
    )


def _flops(info: ModelInfo, trace: Trace, steps: int, own_layers: int) -> dict[str, float]:
    """Return the FLOPs of each line of a run by the cost model, for `steps` decoded tokens."""
    found = {PREFILL: info.text.prefill_flops(trace.text_tokens, trace.kept_per_layer, as_run=True)}
    if own_layers:
        rows = trace.text_tokens + trace.av_tokens
        found[StageName.ENTRY] = info.text.two_way_flops(rows, own_layers)
    grid = trace.clip.get("grid")
    if grid is not None:
        encoded = grid[0] - trace.clip["repeated_grids"]  # repeats are not encoded again
        found["vision tower"] = info.vision.flops((encoded, *grid[1:]))
    if trace.audio_tokens:
        found["audio tower"] = info.audio.flops(trace.audio_tokens)
    if steps > 0:
        kept = trace.kept_per_layer
        if trace.method.get("cache") == "cut":
            kept = (kept[-1],) * len(kept)
        lengths = [trace.text_tokens + count for count in kept]
        found[FURTHER] = info.text.decode_flops(lengths, steps)
    return found


def _notices(runs: Sequence[_Run]) -> tuple[str, ...]:
    """Return each run's notices once, and what could not be measured."""
    found = [notice for run in runs for notice in run.trace.notices]
    for run in runs:
        if len({answer.token_ids for answer in run.answers}) > 1:
            found.append(f"{run.label} did not give the same answer every time.")
    if not any(p.host is not None for run in runs for p in run.peaks.values()):
        found.append("This system does not report a process's memory; host peaks are not measured.")
    return tuple(dict.fromkeys(found))
