"""Lines of rich segments as SVG: blocks become rectangles, words become text at exact places.

rich's own export leans on the font: it loads one from the network, and block glyphs of other fonts
leave gaps. Here only words need a font, and each word's place does not depend on it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len

from omnidrop_cli.terminal.glyphs import EIGHTHS, LEVELS

if TYPE_CHECKING:
    from rich.segment import Segment
    from rich.style import Style

CELL, LINE, SIZE, MARGIN = 8.4, 17.0, 13.5, 16.0
INK, PAPER, FAINT = "#d8dbe2", "#14161b", 0.62
FONTS = "DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, Courier New, monospace"

STYLE = f"""
.r text {{ font-family: {FONTS}; font-size: {SIZE}px; fill: {INK}; }}
.r .b {{ font-weight: bold; }}
.r .d {{ opacity: {FAINT}; }}
.r .p {{ fill: {PAPER}; }}
.r .l {{ fill: {INK}; opacity: .3; }}
@media print {{ .r .p {{ fill: #fff; }} .r text {{ fill: #111; }} .r .l {{ fill: #111; }} }}
"""

#: Part of a cell that a glyph fills: left, top, width, height.
BLOCKS = {"█": (0.0, 0.0, 1.0, 1.0)}
BLOCKS |= {g: (0.0, 0.0, i / 8, 1.0) for i, g in enumerate(EIGHTHS) if i}
BLOCKS |= {g: (0.0, 1 - (i + 1) / 8, 1.0, (i + 1) / 8) for i, g in enumerate(LEVELS)}
RULES = {"─": (0.0, 0.47, 1.0, 0.06), "╵": (0.0, 0.0, 0.12, 0.35)}


def to_svg(lines: list[list[Segment]], columns: int, title: str) -> str:
    """Return a drawing of the lines.

    Parameters
    ----------
    lines : list of list of Segment
        As `Console.render_lines` returns them.
    columns : int
        Width in cells.
    title : str
        What a viewer shows as its name.

    Returns
    -------
    str
        An `<svg>` element that refers to nothing outside itself.
    """
    width, height = columns * CELL + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    body = "\n".join(part for row, line in enumerate(lines) for part in _line(row, line))
    return (
        f'<svg class="r" xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.1f} {height:.1f}" role="img">\n'
        f"<title>{_escaped(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="p" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )


def _escaped(text: str) -> str:
    # Characters that XML does not allow at all would make the file unreadable.
    allowed = "".join(
        c if c in "\t\n" or (c >= " " and c not in "\ufffe\uffff") else "\ufffd" for c in text
    )
    return html.escape(allowed.encode("utf-8", "replace").decode("utf-8"))


def _line(row: int, line: list[Segment]) -> Iterator[str]:
    top, column = MARGIN + row * LINE, 0
    for segment in line:
        style = segment.style
        for kind, run in groupby(segment.text, _kind):
            text = "".join(run)
            left, cells = MARGIN + column * CELL, cell_len(text)
            if style is not None and style.bgcolor is not None and style.bgcolor.triplet:
                yield _rect(left, top, cells * CELL, LINE, f'fill="{style.bgcolor.triplet.hex}"')
            if kind == "words":
                yield from _words(text, left, top, style)
            elif kind:
                part = (BLOCKS | RULES)[kind]
                if kind == "╵":
                    cells = 1
                    part = (0.0, 0.0, part[2], part[3])
                fill = 'class="l"' if kind in RULES else f'fill="{_ink(style)}"'
                yield _rect(
                    left + part[0] * CELL,
                    top + part[1] * LINE,
                    (cells - 1 + part[2]) * CELL,
                    part[3] * LINE,
                    fill,
                )
            column += cells


def _kind(character: str) -> str:
    """Return what is drawn in the same way: one block glyph, words, or nothing."""
    if character in BLOCKS or character in RULES:
        return character
    return "words"


def _ink(style: Style | None) -> str:
    triplet = style.color.triplet if style is not None and style.color is not None else None
    return triplet.hex if triplet else INK


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" {fill} '
        'shape-rendering="crispEdges"/>'
    )


def _words(text: str, left: float, top: float, style: Style | None) -> Iterator[str]:
    marks = ("b" if style and style.bold else "") + (" d" if style and style.dim else "")
    named = f' class="{marks.strip()}"' if marks else ""
    ink = f' style="fill:{_ink(style)}"' if _ink(style) != INK else ""
    for word in re.finditer(r"\S+(?: \S+)*", text):
        x = left + cell_len(text[: word.start()]) * CELL
        length = cell_len(word.group()) * CELL
        yield (
            f'<text x="{x:.1f}" y="{top + LINE * 0.76:.1f}" textLength="{length:.1f}" '
            f'lengthAdjust="spacingAndGlyphs"{named}{ink}>{_escaped(word.group())}</text>'
        )
