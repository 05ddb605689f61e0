"""Questions about a scene, in wordings of their own, and their answers.

The wordings use no word that the demo model does not know, and none of them is one of AVSynth's.
A question about two timelines is asked only where one event of the other timeline covers nearly all
of an event and no other covers a noticeable part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .scenes import FIGURES, INSTRUMENTS, PAINTS, Figure, Part, Scene

Span = tuple[float, float]
FORMS: dict[str, tuple[str, ...]] = {
    "instrument first": ("which instrument sounds first", "name the instrument you hear first"),
    "instrument last": ("which instrument sounds last", "name the instrument you hear last"),
    "instrument next": ("which instrument sounds right after the {a}", "what follows the {a}"),
    "instrument previous": ("which instrument sounds right before the {a}",),
    "instrument order": ("does the {a} sound before or after the {b}",),
    "instrument heard": ("do you hear the sound of the {a}",),
    "shape first": ("which shape is shown first", "what shape is first on screen"),
    "shape last": ("which shape is shown last", "what shape is last on screen"),
    "shape next": ("which shape is shown right after the {a}",),
    "shape previous": ("which shape is shown right before the {a}",),
    "shape order": ("is the {a} shown before or after the {b}",),
    "shape by colour": ("which shape is shown in {a}",),
    "colour of shape": ("in which color is the {a} shown", "name the colour of the {a}"),
    "colour first": ("which color is shown first",),
    "colour last": ("which color is shown last",),
    "shape during instrument": ("which shape is shown while you hear the {a}",),
    "colour during instrument": ("which color is shown while you hear the {a}",),
    "instrument during shape": ("which instrument sounds while the {a} is shown",),
}
SKILL = {"instrument": "sound", "shape": "picture", "colour": "picture"}


@dataclass(frozen=True)
class Ask:
    """A question with its answer; `spans` says when the answer is seen or heard, in seconds."""

    kind: str
    names: tuple[str, ...]
    answer: str
    choices: tuple[str, ...]
    spans: tuple[Span, ...]

    @property
    def needs(self) -> str:
        """Return "sound", "picture" or "both"."""
        return "both" if " during " in self.kind else SKILL[self.kind.split()[0]]


def _only_one(event: Part | Figure, others: tuple) -> Part | Figure | None:
    """Return the event of the other timeline that fills `event`, or None if it is not plain."""
    length = event.stop - event.begin
    share = [(min(o.stop, event.stop) - max(o.begin, event.begin)) / length for o in others]
    best = int(np.argmax(share))
    rest = [s for i, s in enumerate(share) if i != best]
    return others[best] if share[best] >= 0.75 and all(s <= 0.15 for s in rest) else None


def asks(scene: Scene, rng: np.random.Generator) -> list[Ask]:
    """Return every question that may be asked about a scene."""
    found: list[Ask] = []

    def add(
        kind: str, answer: str, choices: tuple[str, ...], *events: object, **names: str
    ) -> None:
        spans = tuple((e.begin, e.stop) for e in events)  # type: ignore[attr-defined]
        found.append(Ask(kind, tuple(names.values()), answer, choices, spans))

    timelines = (
        ("instrument", scene.parts, INSTRUMENTS, [p.instrument for p in scene.parts]),
        ("shape", scene.figures, FIGURES, [f.figure for f in scene.figures]),
    )
    for what, events, choices, names in timelines:
        add(f"{what} first", names[0], choices, events[0])
        add(f"{what} last", names[-1], choices, events[-1])
        for i, j in pairwise(range(len(names))):
            add(f"{what} next", names[j], choices, events[i], events[j], a=names[i])
            add(f"{what} previous", names[i], choices, events[i], events[j], a=names[j])
        i, j = (int(k) for k in rng.permutation(len(names))[:2])
        order = "before" if i < j else "after"
        pair = (events[i], events[j])
        add(f"{what} order", order, ("before", "after"), *pair, a=names[i], b=names[j])
    heard = scene.parts[int(rng.integers(len(scene.parts)))]
    absent = [n for n in INSTRUMENTS if n not in {p.instrument for p in scene.parts}]
    add("instrument heard", "yes", ("yes", "no"), heard, a=heard.instrument)
    add("instrument heard", "no", ("yes", "no"), a=str(rng.choice(absent)))
    for f in scene.figures:
        add("shape by colour", f.figure, FIGURES, f, a=f.paint)
        add("colour of shape", f.paint, PAINTS, f, a=f.figure)
    add("colour first", scene.figures[0].paint, PAINTS, scene.figures[0])
    add("colour last", scene.figures[-1].paint, PAINTS, scene.figures[-1])
    for p in scene.parts:
        if isinstance(f := _only_one(p, scene.figures), Figure):
            add("shape during instrument", f.figure, FIGURES, p, a=p.instrument)
            add("colour during instrument", f.paint, PAINTS, p, a=p.instrument)
    for f in scene.figures:
        if isinstance(p := _only_one(f, scene.parts), Part):
            add("instrument during shape", p.instrument, INSTRUMENTS, f, a=f.figure)
    return found


def choose(
    found: list[Ask], count: int, used: dict[str, int], rng: np.random.Generator
) -> list[Ask]:
    """Choose some questions of a clip, of different kinds: those kinds first that are rare so far.

    Parameters
    ----------
    found : questions of `asks`
    count : how many to choose
    used : how often each kind and each answer of a kind was chosen before; updated
    rng : decides between equals
    """
    chosen: list[Ask] = []
    pool = [found[int(i)] for i in rng.permutation(len(found))]
    for _ in range(count):
        kinds = {ask.kind for ask in chosen}
        rest = [ask for ask in pool if ask.kind not in kinds]
        if not rest:
            break
        best = min(rest, key=lambda a: (used.get(a.kind, 0), used.get(a.kind + a.answer, 0)))
        for key in (best.kind, best.kind + best.answer):
            used[key] = used.get(key, 0) + 1
        chosen.append(best)
    return chosen


def worded(ask: Ask, rng: np.random.Generator) -> str:
    """Return a question as a sentence."""
    forms = FORMS[ask.kind]
    text = forms[int(rng.integers(len(forms)))].format(**dict(zip("ab", ask.names, strict=False)))
    return f"{text[0].upper()}{text[1:]}{'.' if text.startswith('name') else '?'}"
