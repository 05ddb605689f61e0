"""One style for all figures: palette, a dark theme for reports and a light one for publications.

No window system is needed, and matplotlib is imported only when something is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: "dark" for reports, "light" for publications.
Theme = Literal["dark", "light"]

#: Text and lines on the dark theme.
INK = "#d8dbe2"
#: Background of the dark theme.
PAPER = "#14161b"
#: Grid and empty cells of the dark theme.
FAINT = "#3a4050"
#: The unpruned control on the dark theme, and on the light one.
CONTROL = "#8a93a6"
CONTROL_LIGHT = "#666666"
#: Colours of the modalities.
AUDIO = "#e69f00"
VIDEO = "#56b4e9"
#: Colour of what the question's attention goes to.
RELEVANCE = "#cc79a7"
#: Distinguishable by colour-blind readers (Okabe and Ito, 2008), for the dark background.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2", "#ffffff")
#: The same palette for a white background, without the pale yellow.
COLOURS_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: Dots per inch of a PNG.
DPI = 144

_DARK: dict[str, Any] = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "omnidrop",
}

_LIGHT: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "omnidrop"}


@contextmanager
def styled(theme: Theme = "dark") -> Iterator[None]:
    """Apply a theme inside the block; the caller's own settings are restored after it."""
    import matplotlib

    with matplotlib.rc_context(_DARK if theme == "dark" else _LIGHT):  # type: ignore[arg-type]
        yield


def new_figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """Return an empty figure, in inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure, form: str) -> bytes:
    """Return a figure as the bytes of a "png" or an "svg", the same for the same data."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": "omnidrop"} if form == "svg" else {"Software": "omnidrop"}
    with styled():
        figure.savefig(buffer, format=form, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
