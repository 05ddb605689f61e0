"""The page of a profile: runs, time, compute and memory by stage, kept tokens, figures."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from omnidrop import format as fmt
from omnidrop.errors import printable
from omnidrop_cli.page import details
from omnidrop_cli.page.frame import document
from omnidrop_cli.page.html import Markup, folded, join, shortened, shown, table, tag

if TYPE_CHECKING:
    from omnidrop.profiling.result import Profile, RunProfile, StageStat, Timing

#: A figure: what it shows, and its PNG.
Figure = tuple[str, bytes]


def profile_page(found: Profile, figures: Iterable[Figure]) -> str:
    """Return the page of a profile.

    Parameters
    ----------
    found : Profile
    figures : iterable of (str, bytes)
        What each shows, and the figure as PNG.
    """
    parts = [
        _head(found),
        _notices(found.notices),
        _facts(found),
        tag("h2", "Runs"),
        _runs(found),
        tag("h2", "Time by stage"),
        _times(found),
        folded("Compute by stage", _compute(found)),
        folded("Peak memory by stage", _memory(found)),
        *(_kept(run) for run in found.runs),
        *(_figure(alt, png) for alt, png in figures),
    ]
    body = tag("article", *parts)
    name = f"{shown(found.question)} · omnidrop profile"
    return document(name, body, found.to_dict(), "profile")


def _head(found: Profile) -> Markup:
    clip = printable(found.clip)
    return tag(
        "header",
        tag("p", f"Profile of {clip}", class_="muted small", dir="auto"),
        tag("h1", found.question, dir="auto", class_="question"),
        tag("p", found.control.answer, class_="answer long", dir="auto"),
    )


def _notices(notices: Sequence[str]) -> Markup | None:
    if not notices:
        return None
    items = (tag("li", notice, dir="auto") for notice in notices)
    return tag("aside", tag("ul", *items), class_="notices", role="note", aria_label="Notices")


def _facts(found: Profile) -> Markup:
    machine, trace = found.machine, found.control.trace
    threads = machine["threads"]
    rounds = f"{found.repeats} round{'s' * (found.repeats != 1)} after {found.warmup}"
    return details.facts(
        (
            ("Model", str(trace.model.get("name", "?"))),
            ("Machine", f"{machine['name']}, {threads} thread{'s' * (threads != 1)}"),
            ("A large matrix product", f"{fmt.flops(machine['matmul'])}/s in {machine['dtype']}"),
            ("Measured", join((rounds, " ", tag("small", "runs in turns")))),
            ("Seen and heard", details.used(trace)),
        )
    )


def _spread(timing: Timing | None) -> object:
    if timing is None:
        return "–"
    ends = f"{fmt.duration(timing.low)} to {fmt.duration(timing.high)}"
    return join((fmt.duration(timing.median), " ", tag("small", ends)))


def _factor(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} ×"


def _runs(found: Profile) -> Markup:
    rows = []
    for run in found.all:
        control = run is found.control
        prefill = run.stage("LLM prefill")
        rows.append(
            (
                run.label,
                fmt.share(run.realised, 0),
                _spread(run.ttft),
                "–" if control else _factor(run.ttft_speedup),
                _spread(prefill.seconds if prefill else None),
                _factor(prefill.speedup if prefill and not control else None),
                _spread(run.further),
                fmt.size(run.trace.memory.kv_cache),
                "–"
                if control
                else "the same"
                if run.same_answer
                else shortened(run.answer or "no words", 40),
                "–" if control else f"{run.kl:.2g}",
            )
        )
    head = ("run", "kept", "first token", "faster", "prefill", "faster", "each further token",
            "KV cache", "answer", "KL, nats")  # fmt: skip
    caption = "Median, and the fastest and slowest; how much faster than keeping every token"
    return table(head, rows, caption=caption)


def _lines(found: Profile) -> dict[str, StageStat]:
    """Return every line of any run by its name, in order."""
    named: dict[str, StageStat] = {}
    for run in found.all:
        for stat in run.stages:
            named.setdefault(stat.name, stat)
    return named


def _times(found: Profile) -> Markup:
    rows: list[tuple[object, ...]] = []
    for name, line in _lines(found).items():
        label = f"{name} (meanwhile)" if line.overlapped else name
        first = tag("span", label, class_="deep1" if line.within else None)
        stats = (run.stage(name) for run in found.all)
        rows.append((first, *(_spread(stat.seconds if stat else None) for stat in stats)))
    for name, timings in (
        ("total", [run.total for run in found.all]),
        ("first token (TTFT)", [run.ttft for run in found.all]),
    ):
        rows.append((tag("strong", name), *map(_spread, timings)))
    caption = "Median, and the fastest and slowest. Meanwhile: in other threads, not in the total"
    return table(("stage", *(run.label for run in found.all)), rows, caption=caption)


def _compute(found: Profile) -> Markup:
    rows = []
    for name in (stat.name for stat in found.control.stages if stat.flops):
        for run in found.all:
            stat = run.stage(name)
            if stat is not None and stat.flops is not None:
                rate = stat.flops_per_second
                speed = f"{fmt.flops(rate)}/s" if rate is not None else "–"
                achieved = fmt.share(stat.achieved, 0)
                rows.append((name, run.label, fmt.flops(stat.flops), speed,
                             _factor(stat.predicted), achieved))  # fmt: skip
    head = ("stage", "run", "FLOPs", "speed", "faster at best", "reached of it")
    return table(head, rows, caption="FLOPs by the cost model, and the speed that was measured")


def _memory(found: Profile) -> Markup:
    rows = []
    for name in _lines(found):
        stats = [run.stage(name) for run in found.all]
        if any(stat and (stat.host_peak or stat.device_peak) for stat in stats):
            cells = (fmt.size(s.device_peak or s.host_peak) if s else "–" for s in stats)
            rows.append((name, *cells))
    caption = "Peak memory during each stage: of the device, or of the process on a CPU"
    return table(("stage", *(run.label for run in found.all)), rows, caption=caption)


def _kept(run: RunProfile) -> Markup:
    return details.tokens(run.trace, tag("h2", f"Kept by {run.label}")) or Markup("")


def _figure(alt: str, png: bytes) -> Markup:
    data = base64.b64encode(png).decode()
    image = tag("img", alt=alt, src=f"data:image/png;base64,{data}")
    return tag("figure", image, tag("figcaption", alt))


__all__ = ["profile_page"]
