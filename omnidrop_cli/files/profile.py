"""Profiles as files: JSON, a page, text and figures, by suffix; written whole or not at all."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.files import check_target, plain, to_json, write_whole
from omnidrop_cli.files.answers import TEXT_WIDTH, page

if TYPE_CHECKING:
    from omnidrop.profiling.result import Profile, RunProfile
    from omnidrop.profiling.survivors import Replay

FIGURES = ("heatmap", "stages", "sweep", "contact")
#: Figures of one run each; the others show all runs.
OF_A_RUN = ("heatmap", "contact")
DRAWN = (".png", ".svg")

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
    from omnidrop_cli.files.svg import to_svg
    from omnidrop_cli.terminal.console import SAVED_WIDTH, recorder
    from omnidrop_cli.terminal.profile import report

    question = plain(found.question)
    console = recorder(colour=True)
    lines = console.render_lines(report(found, every=True), pad=False)
    parts = [f"<h1>{html.escape(question)}</h1>", to_svg(lines, SAVED_WIDTH, question)]
    for figure in FIGURES:
        for run in found.runs if figure in OF_A_RUN else (None,):
            data = base64.b64encode(draw(figure, found, run, look, "png")).decode()
            alt = html.escape(f"{figure} of {run.label}" if run is not None else figure)
            parts.append(f'<img alt="{alt}" src="data:image/png;base64,{data}">')
    return page(f"{question} · omnidrop profile", parts, to_json(found.to_dict()), "profile")
