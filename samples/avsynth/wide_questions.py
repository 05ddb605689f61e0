"""Questions about wide clips: overlaps, words on screen, two moments, and answers of several words.

A question is left out where two events make its answer a matter of fractions of a second.
`questions.word` words the facts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .questions import YESNO, Fact
from .wide import MAX_SHAPES, MAX_SOUNDS, WORDS
from .world import COLOURS, CORNERS, DIGITS, INSTRUMENTS, SHAPES, Clip, Shape, Sound, Word

Event = TypeVar("Event", Sound, Shape)
CLEAR_S = 0.4
"""Two moments closer than this are not told apart."""
LONGER = 1.5
"""How many times longer an event must be than another to be called longer."""


def _shared(a: Sound | Shape | Word, b: Sound | Shape | Word) -> float:
    """Return the seconds that two events share; negative if they are apart."""
    return min(a.end, b.end) - max(a.start, b.start)


def _alone(event: Sound | Shape | Word, others: Sequence[Event]) -> Event | None:
    """Return the only event of a timeline that is there during most of `event`, or None.

    It covers at least 70 % of it, and no other shares more than 10 % or half of `CLEAR_S`.
    """
    length = event.end - event.start
    near = [o for o in others if _shared(event, o) > min(0.1 * length, CLEAR_S / 2)]
    return near[0] if len(near) == 1 and _shared(event, near[0]) >= 0.7 * length else None


def _listed(names: Sequence[str]) -> str:
    """Return names as a list in words: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _orders(names: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Return the right list and up to three others of the same names, in random order."""
    lists = {_listed([names[int(i)] for i in rng.permutation(len(names))]) for _ in range(8)}
    others = sorted(lists - {_listed(names)})[:3]
    return tuple(str(x) for x in rng.permutation([_listed(names), *others]))


class _Facts:
    """Collects facts."""

    def __init__(self) -> None:
        self.found: list[Fact] = []

    def add(
        self,
        kind: str,
        answer: str,
        choices: Sequence[str],
        look: Sequence[tuple[str, int]] = (),
        sparse: bool = False,
        **slots: str,
    ) -> None:
        """Add a fact; `look` names the events that show the answer, as in `Fact`."""
        slot_items = tuple(slots.items())
        self.found.append(Fact(kind, slot_items, answer, tuple(choices), sparse, tuple(look)))


def _line_facts(
    facts: _Facts,
    key: str,
    events: Sequence[Sound] | Sequence[Shape],
    names: list[str],
    choices: tuple[str, ...],
    most: int,
    rng: np.random.Generator,
) -> None:
    """Add what is asked of either timeline; `key` is "s" or "p"."""
    last = len(names) - 1
    facts.add(f"{key}_first", names[0], choices, [(key, 0)])
    facts.add(f"{key}_last", names[-1], choices, [(key, last)])
    numbers = [str(n) for n in range(1, most + 1)]
    facts.add(f"{key}_count", str(len(names)), numbers, [(key, last)])
    present = int(rng.integers(len(names)))
    facts.add(f"{key}_is", "yes", YESNO, [(key, present)], x=names[present])
    absent = [c for c in choices if c not in names]
    facts.add(f"{key}_is", "no", YESNO, x=str(rng.choice(absent)))
    every = [(key, i) for i in range(len(names))]
    if 2 <= len(names) <= 4:
        facts.add(f"{key}_list", _listed(names), _orders(names, rng), every)
    for i, j in itertools.combinations(range(len(names)), 2):
        a, b, both = events[i], events[j], [(key, i), (key, j)]
        pair = {"x": names[i], "y": names[j]}
        shared = _shared(a, b)
        if shared >= 1.0:
            facts.add(f"{key}_with", "yes", YESNO, both, **pair)
        elif shared <= -CLEAR_S:
            facts.add(f"{key}_with", "no", YESNO, both, **pair)
        if shared <= 0:
            x, y = (names[i], names[j]) if rng.random() < 0.5 else (names[j], names[i])
            facts.add(f"{key}_order", "yes" if x == names[i] else "no", YESNO, both, x=x, y=y)
        lengths = a.end - a.start, b.end - b.start
        if max(lengths) >= LONGER * min(lengths):
            longer = names[i] if lengths[0] > lengths[1] else names[j]
            facts.add(f"{key}_longer", longer, (names[i], names[j]), both, **pair)
        if j == i + 2:
            facts.add(f"{key}_between", names[i + 1], choices, both, **pair)
    for i, event in enumerate(events):
        inside = [
            k
            for k, other in enumerate(events)
            if event.start + CLEAR_S <= other.start <= event.end - CLEAR_S
        ]
        if len(inside) == 1:
            look = [(key, i), (key, inside[0])]
            facts.add(f"{key}_starts_during", names[inside[0]], choices, look, x=names[i])


def _picture_facts(facts: _Facts, clip: Clip, shapes: Sequence[Shape]) -> None:
    described = tuple(f"{s.colour} {s.shape}" for s in shapes)
    for i, s in enumerate(shapes):
        facts.add("p_colour_of", s.colour, COLOURS, [("p", i)], x=s.shape)
        facts.add("p_shape_of", s.shape, SHAPES, [("p", i)], x=s.colour)
        mixed = tuple(f"{c} {s.shape}" for c in COLOURS)
        facts.add("p_describe", described[i], mixed, [("p", i)], x=s.shape)
    if flash := clip.flash:
        facts.add("p_digit", flash.digit, DIGITS, [("d", 0)], True)
        facts.add("p_digit_colour", flash.colour, COLOURS, [("d", 0)], True)
        facts.add("p_corner", flash.corner, CORNERS, [("d", 0)], True)
    words = clip.words
    if len(words) == 1:
        facts.add("p_word", words[0].text, WORDS, [("w", 0)], True)
    elif words:
        facts.add("p_word_first", words[0].text, WORDS, [("w", 0)], True)
        facts.add("p_word_last", words[-1].text, WORDS, [("w", len(words) - 1)], True)
    for i, word in enumerate(words):
        if shape := _alone(word, shapes):
            facts.add("p_shape_at_word", shape.shape, SHAPES, [("w", i)], True, x=word.text)


def _both_facts(
    facts: _Facts, clip: Clip, sounds: Sequence[Sound], shapes: Sequence[Shape]
) -> None:
    described = tuple(f"{s.colour} {s.shape}" for s in shapes)
    long = [(i, s) for i, s in enumerate(sounds) if not s.short]
    shown = {i: shape for i, s in long if (shape := _alone(s, shapes))}
    for i, shape in shown.items():
        look, name = [("s", i)], sounds[i].instrument
        facts.add("b_shape_with", shape.shape, SHAPES, look, x=name)
        facts.add("b_colour_with", shape.colour, COLOURS, look, x=name)
        said = described[shapes.index(shape)]
        facts.add("b_describe", said, described, look, x=name)
    pairs = tuple(f"{a.shape} and {b.shape}" for a, b in itertools.permutations(shapes, 2))
    for i, j in itertools.combinations(shown, 2):
        if shown[i] != shown[j]:
            answer = f"{shown[i].shape} and {shown[j].shape}"
            names = {"x": sounds[i].instrument, "y": sounds[j].instrument}
            facts.add("b_two", answer, pairs, [("s", i), ("s", j)], **names)
    for shape in shapes:
        if sound := _alone(shape, sounds):
            look = [("p", shapes.index(shape))]
            facts.add("b_sound_with", sound.instrument, INSTRUMENTS, look, x=shape.shape)
    hosts = [_alone(word, sounds) for word in clip.words]
    for i, (word, sound) in enumerate(zip(clip.words, hosts, strict=True)):
        if sound is None:
            continue
        look = [("w", i)]
        facts.add("b_sound_at_word", sound.instrument, INSTRUMENTS, look, True, x=word.text)
        touched = [w for w in clip.words if _shared(w, sound) > -CLEAR_S]
        if touched == [word]:
            facts.add("b_word_with", word.text, WORDS, look, True, x=sound.instrument)


def wide_facts(clip: Clip, rng: np.random.Generator) -> list[Fact]:
    """Return everything that may be asked about a wide clip.

    Parameters
    ----------
    clip : of `wide.draw_wide`
    rng : draws what is asked about being there, and the order of choices
    """
    facts = _Facts()
    sounds, shapes = clip.sounds, clip.shapes
    if sounds is not None:
        names = [s.instrument for s in sounds]
        _line_facts(facts, "s", sounds, names, INSTRUMENTS, MAX_SOUNDS + 1, rng)
        if short := clip.short:
            at = [("s", sounds.index(short))]
            facts.add("s_short", short.instrument, INSTRUMENTS, at, True)
    if shapes is not None:
        names = [s.shape for s in shapes]
        _line_facts(facts, "p", shapes, names, SHAPES, MAX_SHAPES, rng)
        _picture_facts(facts, clip, shapes)
    if sounds is not None and shapes is not None:
        _both_facts(facts, clip, sounds, shapes)
    return facts.found
