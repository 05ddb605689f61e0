"""Questions about wide clips: overlaps, words shown and said, two moments, longer answers.

A question is left out where two events make its answer a matter of fractions of a second. A word
that is both shown and said is not asked for by name, since seeing or hearing alone would do.
`questions.word` words the facts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from .questions import YESNO, Fact
from .speech import HEIGHTS, height
from .wide import MAX_SAID, MAX_SHAPES, MAX_SOUNDS
from .world import (
    COLOURS,
    CORNERS,
    DIGITS,
    INSTRUMENTS,
    SHAPES,
    WORDS,
    Clip,
    Said,
    Shape,
    Sound,
    Word,
)

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
    words, heard = clip.words, {said.text for said in clip.speech}
    kinds = {0: "p_word"} if len(words) == 1 else {0: "p_word_first", len(words) - 1: "p_word_last"}
    for i, kind in kinds.items() if words else ():
        if words[i].text not in heard:
            facts.add(kind, words[i].text, WORDS, [("w", i)], True)
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
        if touched == [word] and word.text not in {said.text for said in clip.speech}:
            facts.add("b_word_with", word.text, WORDS, look, True, x=sound.instrument)


def _around(said: Said, events: Sequence[Event]) -> Event | None:
    """Return the only event near a spoken word, if it lasts from well before it to well after."""
    start, end = said.start - CLEAR_S, said.end + CLEAR_S
    near = [e for e in events if e.start < end and e.end > start]
    return near[0] if len(near) == 1 and near[0].start <= start and near[0].end >= end else None


def _only_said(event: Sound | Shape, speech: Sequence[Said]) -> int | None:
    """Return the index of the only word that is said near an event, if it is well inside it."""
    near = [i for i, said in enumerate(speech) if _shared(event, said) > -CLEAR_S]
    if len(near) != 1:
        return None
    said = speech[near[0]]
    inside = event.start + CLEAR_S <= said.start and said.end <= event.end - CLEAR_S
    return near[0] if inside else None


def _asked_after(clip: Clip, rng: np.random.Generator) -> tuple[str, str] | None:
    """Return a word that is said and one that is not, whose being said is asked about, or None.

    In half of the clips that show words, one of them is said. Then that word is drawn as the one
    that is said in half of the cases. If none is, a shown word is drawn as the one that is not, in
    half of the cases. So reading a word tells nothing about whether it is said.
    """
    said, shown = [s.text for s in clip.speech], [w.text for w in clip.words]
    both = [text for text in shown if text in said]
    pick = bool(rng.random() < 0.5)
    yes = both if both and pick else [text for text in said if text not in both]
    if not yes:
        return None
    neither = [text for text in WORDS if text not in (*said, *shown)]
    no = shown if shown and not both and pick else neither
    return str(rng.choice(yes)), str(rng.choice(no))


def _speech_facts(facts: _Facts, clip: Clip, rng: np.random.Generator) -> None:
    """Add what is asked about spoken words."""
    speech, shown = clip.speech, {word.text for word in clip.words}
    texts = [said.text for said in speech]
    last = len(speech) - 1

    def name(kind: str, i: int, look: Sequence[tuple[str, int]] = (), **slots: str) -> None:
        """Ask for the name of word i."""
        if texts[i] not in shown:
            facts.add(kind, texts[i], WORDS, look or [("v", i)], True, **slots)

    if last == 0:
        name("s_said", 0)
    else:
        name("s_said_first", 0)
        name("s_said_last", last)
    for i in range(1, len(speech)):
        name("s_said_after", i, [("v", i - 1), ("v", i)], x=texts[i - 1])
    numbers = [str(n) for n in range(1, MAX_SAID + 1)]
    facts.add("s_said_count", str(len(speech)), numbers, [("v", last)], True)
    if pair := _asked_after(clip, rng):
        yes, no = pair
        facts.add("s_said_is", "yes", YESNO, [("v", texts.index(yes))], True, x=yes)
        facts.add("s_said_is", "no", YESNO, (), True, x=no)
    heights = [height(said) for said in speech]
    for i, said in enumerate(speech):
        facts.add("s_voice", heights[i], HEIGHTS, [("v", i)], True, x=said.text)
        if last > 0 and heights.count(heights[i]) == 1:
            name("s_said_by", i, x=heights[i])
        if sound := _around(said, clip.sounds or ()):
            look = [("v", i)]
            facts.add("s_sound_at_said", sound.instrument, INSTRUMENTS, look, True, x=said.text)
        if shape := _around(said, clip.shapes or ()):
            facts.add("b_shape_at_said", shape.shape, SHAPES, [("v", i)], True, x=said.text)
    for sound in clip.sounds or ():
        if not sound.short and (only := _only_said(sound, speech)) is not None:
            name("s_said_with", only, x=sound.instrument)
    for shape in clip.shapes or ():
        if (only := _only_said(shape, speech)) is not None:
            name("b_said_with", only, x=shape.shape)
    if shown:
        both = [
            (i, j) for i, t in enumerate(texts) for j, w in enumerate(clip.words) if w.text == t
        ]
        look = [("v", both[0][0]), ("w", both[0][1])] if both else []
        facts.add("b_said_shown", "yes" if both else "no", YESNO, look, True)


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
    if not clip.speech:
        return facts.found
    _speech_facts(facts, clip, rng)
    return [replace(fact, exact=True) for fact in facts.found]
