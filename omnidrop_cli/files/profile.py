"""Profiles as files: JSON, a page, text and figures, by suffix; written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.files import check_target, to_json, write_whole
from omnidrop_cli.files.answers import TEXT_WIDTH

if TYPE_CHECKING:
    from omnidrop.profiling.result import Profile, RunProfile
    from omnidrop.profiling.survivors import Replay

FIGURES = ("heatmap", "stages", "sweep", "contact")
#: Figures of one run each; the others show all runs.
OF_A_RUN = ("heatmap", "contact")
DRAWN = (".png", ".svg")
#: What each figure shows.
SHOWN = {
    "heatmap": "Tokens of each part of the clip that enter each layer, kept",
    "stages": "Time by stage of every run",
    "sweep": "Time, memory and difference of the answer by budget",
    "contact": "Frames and log-mel of the clip, with the tokens kept",
}

#: Returns the tokens that a run kept, on the clip's frames and log-mel.
Look = Callable[["RunProfile"], "Replay"]


def targets(path: Path, labels: Sequence[str]) -> dict[tuple[str, str], Path]:
    """Return the files that saving figures to `path` writes.

    Returns
    -------
    dict of Path by (figure, run's label)
        The label is empty for figures of all runs.
    """
    named = next((f for f in FIGURES if re.search(rf"(^|[-_. ]){f}$", path.stem)), None)
    found: dict[tuple[str, str], Path] = {}
    for figure in FIGURES if named is None else (named,):
        shown = labels if figure in OF_A_RUN else ("",)
        for label in shown:
            parts = [path.stem] + ([figure] if named is None else [])
            if label and len(labels) > 1:
                parts.append(re.sub(r"[^\w.]+", "-", label).strip("-"))
            found[figure, label] = path.with_name("-".join(parts) + path.suffix)
    return found


def check(paths: Sequence[Path], labels: Sequence[str], force: bool) -> None:
    """Raise UsageError now if one of the files could not be written later."""
    for path in paths:
        drawn = path.suffix.lower() in DRAWN
        for target in targets(path, labels).values() if drawn else (path,):
            check_target(target, force)


def save(path: Path, found: Profile, look: Look, force: bool) -> Iterator[Path]:
    """Write a profile in the format of the suffix; yield each file written."""
    suffix = path.suffix.lower()
    if suffix in DRAWN:
        runs = {run.label: run for run in found.runs}
        for (figure, label), target in targets(path, list(runs)).items():
            write_whole(target, draw(figure, found, runs.get(label), look, suffix[1:]), force)
            yield target
        return
    if suffix == ".json":
        text = to_json(found.to_dict(), indent=2) + "\n"
    elif suffix == ".txt":
        text = "\n".join(_lines(found)) + "\n"
    else:
        text = _page(found, look)
    write_whole(path, text, force)
    yield path


def draw(figure: str, found: Profile, run: RunProfile | None, look: Look, form: str) -> bytes:
    """Draw one figure: of all runs, or of one."""
    from omnidrop.profiling import contact_sheet, figure_style, figures

    if run is None:
        drawn = figures.stage_bars(found) if figure == "stages" else figures.sweep(found)
    elif figure == "heatmap":
        drawn = figures.heatmap(run)
    else:
        drawn = contact_sheet.contact_sheet(look(run))
    return figure_style.render(drawn, form)


def _lines(found: Profile) -> Iterator[str]:
    from omnidrop_cli.terminal.console import recorder
    from omnidrop_cli.terminal.profile import report

    console = recorder(colour=False, width=TEXT_WIDTH)
    for line in console.render_lines(report(found, every=True), pad=False):
        yield "".join(segment.text for segment in line).rstrip()


def _page(found: Profile, look: Look) -> str:
    from omnidrop_cli.page.profile import profile_page

    return profile_page(found, _figures(found, look))


def _figures(found: Profile, look: Look) -> Iterator[tuple[str, bytes]]:
    """Yield what each figure shows, and its PNG."""
    for figure in FIGURES:
        for run in found.runs if figure in OF_A_RUN else (None,):
            shown = SHOWN[figure] + (f" by {run.label}" if run is not None else "")
            yield shown, draw(figure, found, run, look, "png")
