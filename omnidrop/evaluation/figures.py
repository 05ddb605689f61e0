"""Accuracy over FLOPs: one line per method, with the unpruned model as reference.

FLOPs decrease from left to right, so that names fit where the lines separate. matplotlib is
imported only when a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.evaluation.runner import UNPRUNED
from omnidrop.evaluation.summary import ALL, CellRow, Summary
from omnidrop.profiling.figure_style import COLOURS_LIGHT, CONTROL_LIGHT, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))


def draw(
    summary: Summary, groups: Sequence[tuple[str, str]] | None = None, title: str = ""
) -> Figure:
    """Draw accuracy over the share of FLOPs, one panel for each group of questions.

    Parameters
    ----------
    summary : Summary
    groups : sequence of (str, str), optional
        As (axis, label); default all questions, then the set's `apart` groups.
    title : str
    """
    groups = [ALL, *summary.apart] if groups is None else list(groups)
    labels = [label for label in summary.labels if label != UNPRUNED]
    height = max(4.2, 0.24 * len(labels) + 1.6)
    with styled("light"):
        figure = new_figure(6.4 * len(groups), height)
        axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for ax, group in zip(axes, groups, strict=True):
            _panel(ax, summary, labels, group)
        axes[0].set_ylabel("accuracy, %")
        if title:
            figure.suptitle(title, fontsize=11, parse_math=False)
        figure.draw_without_rendering()  # limits are final: labels can be placed
        for ax, group in zip(axes, groups, strict=True):
            _name_lines(ax, summary, labels, group)
    return figure


def save(summary: Summary, stem: Path, title: str = "") -> tuple[Path, Path]:
    """Write the figure as PNG and SVG.

    Parameters
    ----------
    stem : Path
        Name without a suffix.

    Returns
    -------
    png, svg : Path
    """
    figure = draw(summary, title=title)
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    with styled("light"):
        figure.savefig(png, dpi=160)
        figure.savefig(svg, metadata={"Date": None})
    return png, svg


def line_style(labels: Sequence[str], label: str) -> dict[str, Any]:
    """Return colour, marker and dashes of a method's line; the first 147 all differ."""
    number = list(labels).index(label)
    return {
        "color": COLOURS_LIGHT[number % len(COLOURS_LIGHT)],
        "marker": MARKERS[(number + number // len(COLOURS_LIGHT)) % len(MARKERS)],
        "linestyle": DASHES[number // len(COLOURS_LIGHT) % len(DASHES)],
    }


def _points(summary: Summary, label: str, group: tuple[str, str]) -> list[CellRow]:
    """Return the cells of a line, cheapest first."""
    found = [
        cell
        for cell in summary.cells
        if (cell.label, cell.axis, cell.group) == (label, *group)
        and cell.accuracy is not None
        and cell.flops is not None
    ]
    return sorted(found, key=lambda cell: cell.flops or 0.0)


def _panel(ax: Axes, summary: Summary, labels: Sequence[str], group: tuple[str, str]) -> None:
    for cell in _points(summary, UNPRUNED, group):
        ax.axhline(
            100 * (cell.accuracy or 0), color=CONTROL_LIGHT, ls=(0, (6, 4)), lw=1.2, zorder=1
        )
        ax.axhspan(
            100 * (cell.low or 0), 100 * (cell.high or 0), color=CONTROL_LIGHT, alpha=0.1, lw=0
        )
        ax.annotate(
            f"unpruned {100 * (cell.accuracy or 0):.1f}",
            (0.01, 100 * (cell.accuracy or 0)),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            color=CONTROL_LIGHT,
            fontsize=8,
        )
    for label in labels:
        cells = _points(summary, label, group)
        if not cells:
            continue
        style = line_style(labels, label)
        x = [100 * (cell.flops or 0) for cell in cells]
        y = [100 * (cell.accuracy or 0) for cell in cells]
        ax.plot(x, y, lw=1.5, ms=4.5, zorder=3, **style)
        below = [v - 100 * (cell.low or 0) for v, cell in zip(y, cells, strict=True)]
        above = [100 * (cell.high or 0) - v for v, cell in zip(y, cells, strict=True)]
        ax.errorbar(x, y, [below, above], fmt="none", ecolor=style["color"], alpha=0.22, zorder=2)
    ax.set_xscale("log")
    ax.set_xlabel("LLM prefill FLOPs, % of unpruned (cheaper to the right)")
    _ticks(ax)
    ax.invert_xaxis()
    named = "all questions" if group == ALL else f"{group[0]}: {group[1]}"
    ax.set_title(named, fontsize=10, parse_math=False)
    ax.grid(color="#dddddd", lw=0.6, zorder=0)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _ticks(ax: Axes) -> None:
    """Label the logarithmic axis with plain percentages."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = ax.get_xlim()
    steps = [1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100]
    ax.xaxis.set_major_locator(FixedLocator([s for s in steps if low <= s <= high]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _name_lines(ax: Axes, summary: Summary, labels: Sequence[str], group: tuple[str, str]) -> None:
    """Write each method's name to the right of the panel, near its line's end."""
    ends = {}
    for label in labels:
        if cells := _points(summary, label, group):
            cheapest = cells[0]
            ends[label] = (100 * (cheapest.flops or 0), 100 * (cheapest.accuracy or 0))
    if not ends:
        return
    low, high = ax.get_ylim()
    panel = ax.get_window_extent()
    room = 10.5 * ax.figure.dpi / 72 / panel.height * (high - low)
    names = sorted(ends, key=lambda name: (ends[name][1], name))
    heights = spread([ends[name][1] for name in names], room, low, high)
    for name, height in zip(names, heights, strict=True):
        colour = line_style(labels, name)["color"]
        ax.annotate(
            name,
            parse_math=False,
            xy=ends[name],
            xytext=(1.05, height),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.6,
                "alpha": 0.7,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending heights apart until neighbours differ by `gap`, with minimal total movement.

    They stay between `low` and `high` if there is room.
    """
    groups: list[list[float]] = []  # each: sum of (wanted - its own offset), how many
    for height in wanted:
        groups.append([height, 1])
        while len(groups) > 1 and _bottom(groups[-1], gap) < _top(groups[-2], gap) + gap:
            upper = groups.pop()
            lower = groups[-1]
            lower[0] += upper[0] - upper[1] * lower[1] * gap
            lower[1] += upper[1]
    placed = [_bottom(g, gap) + i * gap for g in groups for i in range(int(g[1]))]
    over = placed[-1] - high if placed else 0.0
    if over > 0:
        placed = [min(h, high - (len(placed) - 1 - i) * gap) for i, h in enumerate(placed)]
    return [max(h, low + i * gap) if over <= 0 else h for i, h in enumerate(placed)]


def _bottom(group: list[float], gap: float) -> float:
    """Return the first height of a group: `group` is [sum of wanted starts, count]."""
    return group[0] / group[1]


def _top(group: list[float], gap: float) -> float:
    return _bottom(group, gap) + (group[1] - 1) * gap
