"""A Profile as figures: heatmap of layers × chunks, stages against the control, budget sweep.

Each function returns a matplotlib Figure; `figure_style.render` turns it into a PNG or SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omnidrop.format import clock
from omnidrop.profiling.figure_style import (
    COLOURS,
    CONTROL,
    FAINT,
    INK,
    PAPER,
    new_figure,
    styled,
)
from omnidrop.profiling.result import PREFILL, UNACCOUNTED, Profile, RunProfile, StageStat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^v"
#: Columns of a legend.
ACROSS = 8


def heatmap(run: RunProfile) -> Figure:
    """Draw the share of each chunk's tokens entering each layer, for audio and video."""
    trace = run.trace
    kinds = [k for k in ("audio", "video") if getattr(trace, f"{k}_tokens")]
    with styled():
        width = max(3.2, min(0.3 * len(trace.chunks), 6.5)) * len(kinds) + 1.4
        figure = new_figure(max(width, 6.5), 5.0)
        figure.suptitle(
            f"{run.label} · share of each chunk's tokens entering each layer", fontsize=12
        )
        axes = figure.subplots(1, max(len(kinds), 1), squeeze=False)[0]
        edges = [c.start for c in trace.chunks] + [trace.chunks[-1].end] if trace.chunks else []
        image = None
        for axis, kind in zip(axes, kinds, strict=False):
            table = np.array(
                [
                    [
                        getattr(c, kind)[layer] / total if (total := getattr(c, f"{kind}_total"))
                        else np.nan
                        for c in trace.chunks
                    ]
                    for layer in range(trace.layers)
                ]
            )  # fmt: skip
            axis.set_facecolor(FAINT)
            rows = np.arange(trace.layers + 1) - 0.5
            image = axis.pcolormesh(edges, rows, table, cmap="viridis", vmin=0, vmax=1)
            axis.invert_yaxis()
            axis.set_title(kind)
            axis.set_xlabel("time in the clip")
            axis.xaxis.set_major_locator(_whole(6))
            axis.yaxis.set_major_locator(_whole(12))
            axis.xaxis.set_major_formatter(lambda value, _: clock(value, None))
        axes[0].set_ylabel("layer")
        if image is not None:
            bar = figure.colorbar(image, ax=list(axes), fraction=0.04, pad=0.02)
            bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
            bar.outline.set_visible(False)
    return figure


def stage_bars(profile: Profile) -> Figure:
    """Draw the median time of every stage, one bar per run, with fastest and slowest."""
    runs = profile.all
    stages = [s for s in profile.control.stages if not _negligible(s, runs)]
    scale, unit = _unit(max(run.total.median for run in runs))
    thick, thin = 0.8 / len(runs), 0.13 if len(runs) <= 8 else 0.08  # share of a row, and inches
    with styled():
        figure = new_figure(9.0, 1.7 + max(thin * len(runs), 0.3) * (len(stages) + 1))
        axis = figure.subplots()
        for number, run in enumerate(runs):
            colour = CONTROL if not number else COLOURS[(number - 1) % len(COLOURS)]
            for place, stage in enumerate([*stages, None]):
                timing = run.ttft if stage is None else _seconds(run, stage.name)
                if timing is None:
                    continue
                parallel = stage is not None and stage.overlapped
                where = place + (number - (len(runs) - 1) / 2) * thick
                axis.barh(
                    where,
                    timing.median * scale,
                    height=thick * 0.92,
                    color=PAPER if parallel else colour,
                    edgecolor=colour,
                    hatch="////" if parallel else None,
                    linewidth=0.6,
                    label=run.label if stage is None else None,
                )
                axis.plot([timing.low * scale, timing.high * scale], [where] * 2, color=INK, lw=1)
        names = [_name(s) for s in stages] + ["first token (TTFT)"]
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlabel(f"{unit}: median, fastest and slowest of {profile.repeats}")
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        figure.suptitle("Time by stage, against the unpruned control", fontsize=12)
        handles, labels = axis.get_legend_handles_labels()
        if any(s.overlapped for s in stages):
            handles.append(_hatched())
            labels.append("in parallel to other stages")
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return figure


def sweep(profile: Profile) -> Figure:
    """Draw speed-up, TTFT and KL over the share of tokens kept, one line per method."""
    methods = list(dict.fromkeys(run.method for run in profile.runs))
    with styled():
        figure = new_figure(12.5, 4.7 + 0.2 * (len(methods) // ACROSS))
        axes = figure.subplots(1, 3)
        speed, early, drift = axes
        for number, method in enumerate(methods):
            look = {
                "color": COLOURS[number % len(COLOURS)],
                "marker": MARKERS[number // len(COLOURS) % len(MARKERS)],
                "ms": 5,
            }
            pruned = [run for run in profile.runs if run.method == method]
            runs = sorted([*pruned, profile.control], key=lambda run: run.realised)
            kept = [100 * run.realised for run in runs]
            for share, style in (("speedup", "-"), ("predicted", ":")):
                values = [_prefill(run, share, profile.control) for run in runs]
                points = look if share == "speedup" else {"color": look["color"], "lw": 1.4}
                speed.plot(kept, values, style, **points)
            early.plot(kept, [run.ttft_speedup for run in runs], label=method, **look)
            pruned.sort(key=lambda run: run.realised)
            drift.plot([100 * r.realised for r in pruned], [r.kl for r in pruned], **look)
            for run in pruned:
                face = look["color"] if run.same_answer else PAPER
                drift.plot([100 * run.realised], [run.kl], **look | {"mfc": face})
        speed.set_title("LLM prefill, speed-up")
        early.set_title("First token (TTFT), speed-up")
        drift.set_title("KL of the first token, nats")
        drift.set_ylim(bottom=-0.03 * drift.get_ylim()[1])
        speed.plot([], [], "-", color=INK, label="measured")
        speed.plot([], [], ":", color=INK, label="by FLOPs")
        drift.plot([], [], "o", color=INK, label="same answer")
        drift.plot([], [], "o", color=INK, mfc=PAPER, label="another answer")
        for axis in axes:
            axis.set_xlabel("audio and video tokens kept, % (mean over layers)")
            axis.set_xlim(0, 103)
            axis.grid(True)
        for axis in (speed, drift):
            axis.legend()
        for axis in (speed, early):
            axis.axhline(1.0, color=CONTROL, lw=0.8)
        handles, labels = early.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=ACROSS)
    return figure


def _prefill(run: RunProfile, name: str, control: RunProfile) -> float | None:
    """Return a ratio of the prefill to the control's; 1 for the control itself."""
    stage = run.stage(PREFILL)
    return 1.0 if run is control else getattr(stage, name) if stage is not None else None


def _negligible(stage: StageStat, runs: Sequence[RunProfile]) -> bool:
    """Return whether a stage takes under half a percent of every run."""
    return (
        all(
            (timing := _seconds(run, stage.name)) is None
            or timing.median < 0.005 * run.total.median
            for run in runs
        )
        and stage.name != UNACCOUNTED
    )


def _seconds(run: RunProfile, name: str) -> Any:
    stage = run.stage(name)
    return stage.seconds if stage is not None else None


def _name(stage: StageStat) -> str:
    return f"part: {stage.name}" if stage.within else stage.name


def _unit(seconds: float) -> tuple[float, str]:
    return (1000.0, "ms") if seconds < 1 else (1.0, "s")


def _hatched() -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=PAPER, edgecolor=INK, hatch="////", linewidth=0.6)


def _whole(most: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, integer=True)
