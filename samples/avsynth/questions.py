"""Questions about a clip, whose answers follow from how the clip was made.

Ambiguous questions are left out: an event that overlaps the moment in question only partly, or that
begins within half a second of it, is not asked about. Each kind of question has wordings for
training and wordings for the test only (`seen=False`), in lower and upper case, with and without a
question mark.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .wide_wordings import SPOKEN_SEEN, SPOKEN_UNSEEN, WIDE_SEEN, WIDE_UNSEEN
from .wordings import SEEN, UNSEEN
from .world import COLOURS, CORNERS, DIGITS, INSTRUMENTS, SHAPES, Clip, Shape, Sound

ALL_SEEN = {**SEEN, **WIDE_SEEN, **SPOKEN_SEEN}
ALL_UNSEEN = {**UNSEEN, **WIDE_UNSEEN, **SPOKEN_UNSEEN}
LOOSE = ("what do you hear", "what starts")
"""Wordings with these would also ask for a spoken word, if there is one."""
FAMILY = {"s": "sound", "p": "picture", "b": "both"}


@dataclass(frozen=True)
class Fact:
    """A question before it is worded: kind (key of the wordings), slots, answer, alternatives."""

    kind: str
    slots: tuple[tuple[str, str], ...]
    answer: str
    choices: tuple[str, ...]
    sparse: bool
    look: tuple[tuple[str, int], ...] = ()
    """Which event shows the answer: ("s", i) audio event i, ("p", i) shape i, ("d", 0) the digit,
    ("q", 0) the silence, ("f", 0) what plays during the digit, ("g", 0) the shape during the digit,
    ("w", i) word i on screen, ("v", i) spoken word i.
    """
    exact: bool = False
    """Whether only wordings will do that no spoken word answers; see `LOOSE`."""

    @property
    def family(self) -> str:
        """Return "sound" (audio only), "picture" (video only) or "both"."""
        return FAMILY[self.kind[0]]


@dataclass(frozen=True)
class Question:
    """A fact worded as a question."""

    text: str
    answer: str
    choices: tuple[str, ...]
    kind: str
    family: str
    sparse: bool
    seen: bool
    look: tuple[tuple[str, int], ...] = ()


YESNO = ("yes", "no")
ORDER = ("before", "after")


def _look(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((part[0], int(part[1:])) for part in text.split())


def _overlap(a: Sound | Shape, b: Sound | Shape) -> float:
    return max(0.0, min(a.end, b.end) - max(a.start, b.start))


def _covering(events: tuple, start: float, end: float, duration: float) -> object | None:
    """Return the event that covers the span and half a second on both sides, or None."""
    a, b = max(0.0, start - 0.5), min(duration - 0.05, end + 0.5)
    return next((e for e in events if e.start <= a + 0.1 and e.end >= b - 0.1), None)


def _main_partner(event: Sound | Shape, others: tuple) -> object | None:
    """Return the event of the other timeline that overlaps most of `event`, or None."""
    shares = sorted(
        ((_overlap(event, o) / (event.end - event.start), i) for i, o in enumerate(others)),
        reverse=True,
    )
    if not shares or shares[0][0] < 0.7 or (len(shares) > 1 and shares[1][0] > 0.2):
        return None
    return others[shares[0][1]]


def _sound_facts(clip: Clip, rng: np.random.Generator) -> list[Fact]:
    line = clip.sounds or ()
    facts: list[Fact] = []

    def add(
        kind: str, answer: str, choices: tuple, sparse: bool, look: str = "", **slots: str
    ) -> None:
        facts.append(Fact(kind, tuple(slots.items()), answer, choices, sparse, _look(look)))

    names = [s.instrument for s in line]
    absent = [i for i in INSTRUMENTS if i not in names]
    short = clip.short
    brief = [s.short for s in line]
    add("s_first", names[0], INSTRUMENTS, brief[0], "s0")
    add("s_last", names[-1], INSTRUMENTS, brief[-1], f"s{len(line) - 1}")
    if len(line) > 1:
        add("s_second", names[1], INSTRUMENTS, any(brief[:2]), "s1")
        for n, (a, b) in enumerate(itertools.pairwise(line)):
            add(
                "s_after",
                b.instrument,
                INSTRUMENTS,
                a.short or b.short,
                f"s{n + 1}",
                x=a.instrument,
            )
            add("s_before", a.instrument, INSTRUMENTS, a.short or b.short, f"s{n}", x=b.instrument)
        i, j = rng.permutation(len(line))[:2]
        add(
            "s_order",
            "yes" if i < j else "no",
            YESNO,
            brief[i] or brief[j],
            f"s{i} s{j}",
            x=names[i],
            y=names[j],
        )
    if len(line) > 2:
        add("s_third", names[2], INSTRUMENTS, any(brief[:3]), "s2")
    add("s_count", str(len(line)), ("1", "2", "3", "4"), any(brief), f"s{len(line) - 1}")
    one = line[int(rng.integers(len(line)))]
    add("s_is", "yes", YESNO, one.short, f"s{line.index(one)}", x=one.instrument)
    add("s_is", "no", YESNO, False, x=str(rng.choice(absent)))
    if short:
        at = f"s{line.index(short)}"
        add("s_is", "yes", YESNO, True, at, x=short.instrument)
        add("s_short", short.instrument, INSTRUMENTS, True, at)
        add("s_short", short.instrument, INSTRUMENTS, True, at)
        for other in (s for s in line if not s.short):
            add(
                "s_short_order",
                "before" if short.end <= other.start else "after",
                ORDER,
                True,
                f"{at} s{line.index(other)}",
                x=other.instrument,
            )
    if not clip.gaps:
        add("s_silence", "yes" if clip.silence else "no", YESNO, True, "q0" if clip.silence else "")
        if clip.silence:
            after = next(s for s in line if s.start >= clip.silence[1] - 0.01)
            prior = [s for s in line if s.end <= clip.silence[0] + 0.12][-1]
            add("s_after_silence", after.instrument, INSTRUMENTS, True, f"s{line.index(after)}")
            add("s_before_silence", prior.instrument, INSTRUMENTS, True, f"s{line.index(prior)}")
    return facts


def _picture_facts(clip: Clip, rng: np.random.Generator) -> list[Fact]:
    line = clip.shapes or ()
    facts: list[Fact] = []

    def add(
        kind: str, answer: str, choices: tuple, sparse: bool, look: str = "", **slots: str
    ) -> None:
        facts.append(Fact(kind, tuple(slots.items()), answer, choices, sparse, _look(look)))

    names, hues = [s.shape for s in line], [s.colour for s in line]
    absent = [s for s in SHAPES if s not in names]
    if line:
        add("p_first", names[0], SHAPES, False, "p0")
        end = f"p{len(line) - 1}"
        add("p_last", names[-1], SHAPES, False, end)
        add("p_first_colour", hues[0], COLOURS, False, "p0")
        add("p_last_colour", hues[-1], COLOURS, False, end)
        add("p_count", str(len(line)), ("1", "2", "3"), False, end)
        one = line[int(rng.integers(len(line)))]
        add("p_is", "yes", YESNO, False, f"p{line.index(one)}", x=one.shape)
        for n, s in enumerate(line):
            add("p_colour_of", s.colour, COLOURS, False, f"p{n}", x=s.shape)
            add("p_shape_of", s.shape, SHAPES, False, f"p{n}", x=s.colour)
        for n, (a, b) in enumerate(itertools.pairwise(line)):
            add("p_after", b.shape, SHAPES, False, f"p{n + 1}", x=a.shape)
            add("p_before", a.shape, SHAPES, False, f"p{n}", x=b.shape)
        if len(line) > 1:
            add("p_second", names[1], SHAPES, False, "p1")
            i, j = rng.permutation(len(line))[:2]
            add(
                "p_order",
                "yes" if i < j else "no",
                YESNO,
                False,
                f"p{i} p{j}",
                x=names[i],
                y=names[j],
            )
    add("p_is", "no", YESNO, False, x=str(rng.choice(absent)))
    flash = clip.flash
    add("p_flash", "yes" if flash else "no", YESNO, True, "d0" if flash else "")
    if not flash:
        return facts
    add("p_digit", flash.digit, DIGITS, True, "d0")
    add("p_digit", flash.digit, DIGITS, True, "d0")
    add("p_digit_colour", flash.colour, COLOURS, True, "d0")
    add("p_digit_colour", flash.colour, COLOURS, True, "d0")
    add("p_corner", flash.corner, CORNERS, True, "d0")
    add("p_corner", flash.corner, CORNERS, True, "d0")
    host = _covering(line, flash.start, flash.end, clip.duration)
    if isinstance(host, Shape):
        on = "g0"
        add("p_shape_at_flash", host.shape, SHAPES, True, on)
        add("p_shape_at_flash", host.shape, SHAPES, True, on)
        add("p_colour_at_flash", host.colour, COLOURS, True, on)
    for s in line:
        if flash.end <= s.start - 0.5 or flash.start >= s.end + 0.5:
            add(
                "p_flash_order",
                "before" if flash.end <= s.start else "after",
                ORDER,
                True,
                f"d0 p{line.index(s)}",
                x=s.shape,
            )
    return facts


def _both_facts(clip: Clip, rng: np.random.Generator) -> list[Fact]:
    sounds, shapes = clip.sounds or (), clip.shapes or ()
    facts: list[Fact] = []

    def add(
        kind: str, answer: str, choices: tuple, sparse: bool, look: str = "", **slots: str
    ) -> None:
        facts.append(Fact(kind, tuple(slots.items()), answer, choices, sparse, _look(look)))

    for s in (s for s in sounds if not s.short):
        if isinstance(partner := _main_partner(s, shapes), Shape):
            add("b_shape_with", partner.shape, SHAPES, False, f"s{sounds.index(s)}", x=s.instrument)
            add(
                "b_colour_with",
                partner.colour,
                COLOURS,
                False,
                f"s{sounds.index(s)}",
                x=s.instrument,
            )
    for shape in shapes:
        if isinstance(other := _main_partner(shape, sounds), Sound):
            add(
                "b_sound_with",
                other.instrument,
                INSTRUMENTS,
                False,
                f"s{sounds.index(other)}",
                x=shape.shape,
            )
    if shapes:
        pairs = [(a, b) for a in sounds if not a.short for b in shapes]
        together = [p for p in pairs if _overlap(*p) >= 1.2]
        apart = [(a, b) for a, b in pairs if a.end < b.start - 0.5 or b.end < a.start - 0.5]
        for group, answer in ((together, "yes"), (apart, "no")):
            if group:
                a, b = group[int(rng.integers(len(group)))]
                add(
                    "b_together",
                    answer,
                    YESNO,
                    False,
                    f"s{sounds.index(a)} p{shapes.index(b)}",
                    x=a.instrument,
                    y=b.shape,
                )
    flash, short = clip.flash, clip.short
    if flash:
        host = _covering(sounds, flash.start, flash.end, clip.duration)
        if isinstance(host, Sound):
            add("b_sound_at_flash", host.instrument, INSTRUMENTS, True, "f0")
            add("b_sound_at_flash", host.instrument, INSTRUMENTS, True, "f0")
        for s in sounds:
            if flash.end <= s.start - 0.5 or flash.start >= s.end + 0.5:
                add(
                    "b_flash_order",
                    "before" if flash.end <= s.start else "after",
                    ORDER,
                    True,
                    f"d0 s{sounds.index(s)}",
                    x=s.instrument,
                )
    if short:
        host = _covering(shapes, short.start, short.end, clip.duration)
        if isinstance(host, Shape):
            on = f"s{sounds.index(short)}"
            add("b_shape_at_short", host.shape, SHAPES, True, on)
            add("b_shape_at_short", host.shape, SHAPES, True, on)
            add("b_colour_at_short", host.colour, COLOURS, True, on)
            add("b_colour_at_short", host.colour, COLOURS, True, on)
    if clip.silence and not clip.gaps:
        host = _covering(shapes, *clip.silence, clip.duration)
        if isinstance(host, Shape):
            on = "q0"
            add("b_shape_at_silence", host.shape, SHAPES, True, on)
            add("b_colour_at_silence", host.colour, COLOURS, True, on)
    return facts


def facts_of(clip: Clip, rng: np.random.Generator) -> list[Fact]:
    """Return everything that may be asked about a clip."""
    facts: list[Fact] = []
    if clip.sounds is not None:
        facts += _sound_facts(clip, rng)
    if clip.shapes is not None:
        facts += _picture_facts(clip, rng)
    if clip.sounds is not None and clip.shapes is not None:
        facts += _both_facts(clip, rng)
    return facts


def word(fact: Fact, rng: np.random.Generator, seen: bool = True) -> Question:
    """Word a fact as a question: draw a wording, case, question mark and sometimes choices."""
    forms = (ALL_SEEN if seen else ALL_UNSEEN)[fact.kind]
    if fact.exact:
        forms = tuple(form for form in forms if not any(loose in form for loose in LOOSE))
    text = forms[int(rng.integers(len(forms)))].format(**dict(fact.slots))
    mark = "?" if rng.random() < 0.75 else ""
    choices = fact.choices
    style = rng.random()
    if len(choices) > 3 and rng.random() < 0.15:
        others = [c for c in choices if c != fact.answer]
        few = [*rng.permutation(others)[: int(rng.integers(1, 4))], fact.answer]
        choices = tuple(str(c) for c in rng.permutation(few))
        text = f"{text}{mark} choices: {', '.join(choices)}"
    else:
        text += mark
    if style < 0.6:
        text = text[0].upper() + text[1:]
    elif style > 0.92:
        text = text.upper()
    return Question(
        text, fact.answer, choices, fact.kind, fact.family, fact.sparse, seen, fact.look
    )
