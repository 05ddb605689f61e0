"""Write docs/methods.md from the methods' docstrings; a test checks that the page is current.

python docs/make_methods.py             # writes docs/methods.md
python docs/make_methods.py --stdout    # prints it

Every docstring has one pattern: one sentence; "Based on" a paper with its address; "Published:" and
"Ours:" paragraphs; numpy-style parameters.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path

from omnidrop.pruning.compose import Compose
from omnidrop.pruning.method import OF_THE_QUESTION, Method, Need, Part
from omnidrop.pruning.registry import methods, wrappers

HEAD = """# Methods

<!-- Made by docs/make_methods.py from the docstrings. Do not edit. -->

A method drops audio and video (AV) tokens so that the mean over the decoder's layers of (AV tokens
entering the layer) / N is the budget. `omnidrop ask clip.mp4 "…" --method NAME --budget 0.3`
chooses one, and `--set FIELD=VALUE` changes a setting. `omnidrop models` lists them too.

Each section says what a paper or its public code publishes, and what is ours. Meeting any budget
exactly is ours throughout.

Each section also says what a second question about the clip reuses: the keys and values of layers
that do not depend on the question. Text before the clip and what enters of it must have 512 tokens
together. With fewer, a pass over the clip by itself would slow the first question down too much,
so each question computes them anew.
"""

PARTS = {
    Part.ENTRY: "what enters",
    Part.LAYERS: "what stays inside the layers",
    Part.SCHEDULE: "the schedule over the layers",
}


def linked(text: str) -> str:
    """Turn bare addresses into links, and docstring quotes into Markdown."""
    return re.sub(r"https://[^\s);,]+[^\s);,.]", lambda found: f"<{found[0]}>", text)


def sections(kind: type[Method]) -> tuple[list[str], dict[str, str]]:
    """Return the paragraphs before a docstring's parameters, and the text of each parameter."""
    text = inspect.cleandoc(kind.__doc__ or "")
    body, _, listed = text.partition("Parameters\n----------\n")
    paragraphs = [part for part in body.strip().split("\n\n") if part]
    about: dict[str, str] = {}
    names: list[str] = []
    for line in listed.splitlines():
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
            about |= dict.fromkeys(names, "")
        else:
            about |= {name: f"{about[name]} {line.strip()}".strip() for name in names}
    return paragraphs, about


def settings(kind: type[Method], about: dict[str, str]) -> list[str]:
    """Return a table of a method's settings."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for field in fields(kind):
        shown = "" if field.default is MISSING else f"`{plain(field.default)}`"
        meaning = linked(about.get(field.name, "")).replace("|", "\\|")
        rows.append(f"| `{field.name}` | {shown} | {meaning} |")
    return rows


def plain(value: object) -> str:
    """Return a default as it is typed after `--set`."""
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{part:g}" for part in value) + "]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def facts(kind: type[Method]) -> list[str]:
    """Return what holds of a method, from its attributes."""
    found = [f"Source: `{kind.__module__.replace('.', '/')}.py`, class `{kind.__name__}`."]
    if kind is Compose or kind in wrappers().values():
        return found
    parts = [PARTS[part] for part in Part if part in kind().parts()]
    if parts:
        found.append(f"A composition can take from it {', '.join(parts)}.")
    elif kind is Method:
        found.append("In a composition, as the entry, it lets every token in.")
    if Need.VIDEO_ATTENTION in kind.wants:
        found.append("It needs the vision encoder's attention, which is computed for it.")
    if kind.wants & OF_THE_QUESTION:
        found.append("It chooses by the question what enters: a second question reuses no layer.")
    if kind().question_free:
        found.append("It does not look at the question: a second question reuses the whole clip.")
    if kind.needs_host and Part.LAYERS in kind().parts():
        found.append(f"Inside the layers it chooses on the CPU: {kind.needs_host}.")
    return found


def page(name: str, kind: type[Method]) -> str:
    """Return a method's section."""
    paragraphs, about = sections(kind)
    body = "\n\n".join(linked(part) for part in paragraphs)
    body = re.sub(r"^(Published|Ours)([:.])", r"**\1**\2", body, flags=re.MULTILINE)
    return "\n".join(
        [f"## {name}", "", body, "", *settings(kind, about), "", " ".join(facts(kind)), ""]
    )


def document() -> str:
    """Return the whole page."""
    found = [page(f"Splitting a budget: METHOD@{name}", kind) for name, kind in wrappers().items()]
    found += [page(name, kind) for name, kind in methods().items()]
    return "\n".join([HEAD, page("Compositions: uniform+omnidrop", Compose), *found])


if __name__ == "__main__":
    if "--stdout" in sys.argv[1:]:
        sys.stdout.write(document())
    else:
        Path(__file__).with_name("methods.md").write_text(document(), encoding="utf-8")
