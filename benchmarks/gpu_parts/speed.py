"""Measures hardware limits, TTFT, decoding and second questions, in turns with transformers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import omnidrop
from benchmarks.gpu_parts import peer
from benchmarks.gpu_parts.bench import Bench, Cell, Reading
from benchmarks.gpu_parts.shapes import Shape, build, make_features, model_of, twin, weight_bytes
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.memory import device_peak, reset_device_peak
from omnidrop.engine.model import Model
from omnidrop.engine.timing import synchronize
from omnidrop.pruning.registry import method_names

QUESTION = "What instrument plays first, and what is shown on screen at the same time?"
LATER = "Which colour is shown last?"
BUDGETS = (0.3, 0.2, 0.1)

#: Tokens decoded before the rate is measured: plans, captures and compilation are then done.
SETTLED = 8

#: Seconds that the compiled peer may take for its first answer.
COMPILING = 120.0


@dataclass(frozen=True)
class Subject:
    """A shape on the device: OmniDrop's and transformers' model with the same weights.

    Attributes
    ----------
    name : str
    shape : Shape
    model : Model
        OmniDrop.
    thinker : Module
        Transformers.
    weights : int
        Bytes of one copy of the weights.
    """

    name: str
    shape: Shape
    model: Model
    thinker: Any
    weights: int

    @classmethod
    def make(cls, name: str, shape: Shape, device: torch.device) -> Subject:
        """Draw the weights."""
        thinker = build(shape, device)
        other = twin(thinker)
        return cls(name, shape, model_of(thinker, name), other, weight_bytes(other))


def methods(shape: Shape) -> dict[str, omnidrop.Method]:
    """Return the methods to compare: OmniDrop with its paper's preset, or else solved."""
    presets = omnidrop.OmniDrop.presets()
    found: dict[str, omnidrop.Method] = {"none": omnidrop.Method()}
    for budget in BUDGETS:
        name = f"paper-{shape.paper.lower()}-{round(100 * budget)}"
        found[f"omnidrop {budget:.0%}"] = presets.get(name) or omnidrop.OmniDrop(budget=budget)
    found["omnidrop-auto 10%"] = omnidrop.OmniDropAuto(budget=0.1)
    if "seats" in method_names():
        found["seats 10%"] = omnidrop.get_method("seats", budget=0.1)
    return found


def ceilings(bench: Bench, size: int | None = None) -> dict[str, float]:
    """Measure the limits of the GPU: matrix products, copies on it, copies to it.

    Returns
    -------
    dict
        FLOP/s of a bfloat16 product, bytes read and written per second by a copy, bytes per second
        from pageable and from pinned host memory.
    """
    device, cuda = bench.device, bench.device.type == "cuda"
    size = size or (8192 if cuda else 256)
    found: dict[str, float] = {}

    def best(run: Callable[[], object], rounds: int = 10) -> float:
        for _ in range(3):
            run()
        synchronize(device)
        start = time.perf_counter()
        for _ in range(rounds):
            run()
        synchronize(device)
        return (time.perf_counter() - start) / rounds

    if not bench.allows("ceilings", "all", 3.0):
        return found
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    found["matmul"] = 2 * size**3 / best(lambda: torch.mm(a, b, out=out))
    bench.row("ceilings", f"matmul {size}³ bf16", tflops=found["matmul"] / 1e12)
    count = 2**31 if cuda else 2**20
    source, target = (torch.empty(count, dtype=torch.uint8, device=device) for _ in range(2))
    source.fill_(1)
    found["copy"] = 2 * count / best(lambda: target.copy_(source))
    bench.row("ceilings", "copy on the device", tb_per_second=found["copy"] / 1e12)
    if cuda:
        del source
        host = torch.ones(2**29, dtype=torch.uint8)
        for name, kind in (("pageable", host), ("pinned", host.pin_memory())):
            seconds = best(lambda kind=kind: target[: 2**29].copy_(kind), 3)
            found[name] = 2**29 / seconds
            bench.row("ceilings", f"copy from {name} memory", gb_per_second=found[name] / 1e9)
    return found


class Memory:
    """Peak memory of a cell, counting one copy of the weights; created when the cell begins."""

    def __init__(self, subject: Subject, device: torch.device) -> None:
        self._subject, self._device = subject, device
        reset_device_peak(device)
        self._before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0

    def peak_gb(self) -> float:
        """Peak in GB since the cell began; NaN if the device does not count it."""
        peak = device_peak(self._device)
        if peak is None:
            return float("nan")
        return (peak - self._before + self._subject.weights) / 1e9


def first_token(bench: Bench, subject: Subject, tokens: int, rate: float | None) -> None:
    """TTFT and memory of one question, by method.

    Parameters
    ----------
    bench : Bench
    subject : Subject
    tokens : int
        AV tokens, about.
    rate : float or None
        Measured FLOP/s of the GPU.
    """
    device = bench.device
    features = make_features(subject.shape, tokens, device)
    ids = peer.prompt_ids(subject.model, features, QUESTION)

    def theirs() -> Reading:
        memory = Memory(subject, device)
        said = peer.generate(subject.thinker, ids, features, 1)
        return {"ttft": said.ticks[0], "peak_gb": memory.peak_gb()}

    cells: dict[str, Cell] = {"transformers": theirs}
    for name, method in methods(subject.shape).items():
        cells[name] = lambda method=method: _ours(subject, features, method, device, rate)
    rows = bench.turns("ttft", cells, shape=subject.name, tokens=tokens)
    full, peer_row = rows.get("none"), rows.get("transformers")
    for name, row in rows.items():
        if peer_row and name != "transformers":
            row["over_transformers"] = peer_row["ttft"] / row["ttft"]
        if full and "prefill" in row:
            row["speedup"] = full["prefill"] / row["prefill"]
            row["speedup_by_flops"] = full["flops"] / row["flops"]
            row["reached"] = row["speedup"] / row["speedup_by_flops"]
        if "over_transformers" in row:
            shown = {k: row[k] for k in ("over_transformers", "speedup", "reached") if k in row}
            print(f"  {name}: " + ", ".join(f"{k} {v:.2f}" for k, v in shown.items()), flush=True)
    bench.save()


def _ours(
    subject: Subject,
    features: Features,
    method: omnidrop.Method,
    device: torch.device,
    rate: float | None,
) -> Reading:
    one = GenerateOptions(max_new_tokens=1)
    with subject.model.features(features) as session:
        memory = Memory(subject, device)
        synchronize(device)
        start = time.perf_counter()
        trace = session.ask(QUESTION, method=method, options=one, reuse=False).trace
        synchronize(device)
        wall = time.perf_counter() - start
    stages = {stage.name: stage.seconds for stage in trace.stages}
    prefill = stages.get("entry", 0.0) + stages.get("prefill", 0.0)
    flops = subject.model.info.text.prefill_flops(
        trace.text_tokens, trace.kept_per_layer, as_run=True
    )
    return {
        "ttft": trace.ttft,
        "wall": wall,
        "vision": stages.get("vision tower", 0.0),
        "audio": stages.get("audio tower", 0.0),
        "prefill": prefill,
        "selection": stages.get("selection", 0.0),
        "av_tokens": trace.av_tokens,
        "realised": trace.realised_budget,
        "peak_gb": memory.peak_gb(),
        "kv_gb": trace.memory.kv_cache / 1e9,
        "flops": flops,
        "tflops": flops / prefill / 1e12,
        "of_ceiling": flops / prefill / rate if rate else float("nan"),
    }


def decoding(bench: Bench, subject: Subject, tokens: int, new: int, copy: float | None) -> None:
    """Measure milliseconds per token after a long prompt, without the first few tokens.

    Parameters
    ----------
    bench : Bench
    subject : Subject
    tokens : int
        AV tokens, about.
    new : int
        Number of tokens to measure.
    copy : float or None
        Measured bytes per second of a copy; reading the decoder's weights once is a lower bound of
        the time per token.
    """
    device = bench.device
    features = make_features(subject.shape, tokens, device)
    ids = peer.prompt_ids(subject.model, features, QUESTION)
    if copy:
        language = subject.model.info.text
        read = 2 * (subject.model.info.parameters - _outside(subject.thinker))
        bench.row(
            "decoding",
            "reading the weights",
            shape=subject.name,
            tokens=tokens,
            ms=1000 * read / copy,
            layers=language.layers,
        )

    def theirs(**settings: Any) -> Reading:
        said = peer.generate(subject.thinker, ids, features, 1 + SETTLED + new, **settings)
        last, first, settled = said.ticks[-1], said.ticks[0], said.ticks[SETTLED]
        return {
            "ms": 1000 * (last - settled) / new,
            "first_ms": 1000 * (settled - first) / SETTLED,
        }

    def ours(method: omnidrop.Method) -> Reading:
        with subject.model.features(features) as session:
            session.encode(video_attention="video attention" in method.wants)
            seconds = []
            for count in (1 + SETTLED, 1 + SETTLED + new):
                options = GenerateOptions(max_new_tokens=count)
                trace = session.ask(QUESTION, method=method, options=options, reuse=False).trace
                assert trace.tokens_per_second is not None
                seconds.append((count - 1) / trace.tokens_per_second)
        return {
            "ms": 1000 * (seconds[1] - seconds[0]) / new,
            "first_ms": 1000 * seconds[0] / SETTLED,
        }

    known = methods(subject.shape)
    wanted = ("none", "omnidrop 20%", "omnidrop 10%")
    cells: dict[str, Cell] = {"transformers": theirs}
    for name in wanted:
        cells[name] = lambda name=name: ours(known[name])
    about = {"shape": subject.name, "tokens": tokens}
    rows = bench.turns("decoding", cells, **about)
    static = "transformers, static cache, compiled"
    rows |= bench.turns(
        "decoding",
        {static: lambda: theirs(cache_implementation="static")},
        bounds={static: COMPILING},
        **about,
    )
    for name in wanted:
        for other in ("transformers", static):
            if name in rows and other in rows:
                ratio = rows[other]["ms"] / rows[name]["ms"]
                rows[name]["over_" + ("static" if other is static else other)] = ratio
                print(f"  {name}: {ratio:.2f} times as fast as {other}", flush=True)
    bench.save()


def _outside(thinker: Any) -> int:
    """Count the weights that a decode step does not read: encoders and the embedding table."""
    return sum(
        weight.numel()
        for name, weight in thinker.named_parameters()
        if "visual." in name or "audio_tower." in name or "embed_tokens." in name
    )


def second_question(bench: Bench, subject: Subject, tokens: int) -> None:
    """Measure the TTFT of a second question about the same clip, relative to the first's."""
    features = make_features(subject.shape, tokens, bench.device)
    one = GenerateOptions(max_new_tokens=1)

    def cell(method: omnidrop.Method) -> Reading:
        with subject.model.features(features) as session:
            first, second = (
                session.ask(question, method=method, options=one).trace.ttft
                for question in (QUESTION, LATER)
            )
        return {"first": first, "second": second, "ratio": second / first}

    known = methods(subject.shape)
    wanted = ("none", "omnidrop 20%", "omnidrop-auto 10%")
    bench.turns(
        "second-question",
        {name: lambda name=name: cell(known[name]) for name in wanted},
        shape=subject.name,
        tokens=tokens,
    )
