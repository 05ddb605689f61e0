"""Wide clips: overlaps, a minute, words on screen, two moments; every answer is computed again.

What is about spoken words is in `test_spoken`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from avsynth import testset, wordings
from avsynth.evidence import spans
from avsynth.letters import BAND, INK, LETTERS, dots, draw_word
from avsynth.media import fingerprint
from avsynth.picture import draw_frame, shape_mask
from avsynth.questions import Fact, word
from avsynth.sound import load_bank, render_sound
from avsynth.wide import WORDS, WideOptions, draw_wide
from avsynth.wide_questions import wide_facts
from avsynth.wide_wordings import SPOKEN_SEEN, WIDE_SEEN, WIDE_UNSEEN
from avsynth.world import COLOURS, DIGITS, INSTRUMENTS, SHAPES, Clip, Word, WorldOptions, draw_clip

from omnidrop.evaluation.sets import read_set

SEEDS = range(60)
CLIPS = [draw_wide(seed) for seed in SEEDS]


def facts_of(clip: Clip) -> list[Fact]:
    return wide_facts(clip, np.random.default_rng(clip.seed))


def test_a_seed_always_gives_the_same_clip() -> None:
    assert draw_wide(5) == draw_wide(5) != draw_wide(6)
    clip = min(CLIPS, key=lambda c: c.duration)
    assert fingerprint(clip) == fingerprint(draw_wide(clip.seed))


def test_the_clips_of_before_have_no_words_and_say_nothing_of_them() -> None:
    clip = draw_clip(3, WorldOptions())
    assert clip.words == ()
    assert "words" not in repr(clip)


def test_the_demo_models_vocabulary_does_not_grow() -> None:
    own = set(re.findall("[a-z]+", " ".join(f for forms in WIDE_SEEN.values() for f in forms)))
    assert {"list", "describe", "read"} <= own
    assert not {"list", "describe", "read", "overlap"} & set(wordings.words())


def test_wide_wordings_are_apart_from_each_other_and_from_the_others() -> None:
    assert WIDE_SEEN.keys() == WIDE_UNSEEN.keys()
    assert not WIDE_SEEN.keys() & wordings.SEEN.keys()
    sets = [
        {form for forms in table.values() for form in forms}
        for table in (wordings.SEEN, wordings.UNSEEN, WIDE_SEEN, WIDE_UNSEEN)
    ]
    assert not any(a & b for a, b in combinations(sets, 2))


def test_clips_reach_a_minute_and_things_overlap() -> None:
    assert all(10 <= clip.duration <= 60 for clip in CLIPS)
    assert max(clip.duration for clip in CLIPS) > 55
    overlaps = {"sounds": 0, "shapes": 0}
    for clip in CLIPS:
        for name in overlaps:
            events = getattr(clip, name) or ()
            overlaps[name] += any(a.end > b.start for a, b in pairwise(events))
    assert all(count > 20 for count in overlaps.values())
    apart = [draw_wide(seed, WideOptions(overlap=0.0)) for seed in range(20)]
    for clip in apart:
        for events in (clip.sounds or (), clip.shapes or ()):
            assert all(a.end <= b.start for a, b in pairwise(events))


def test_never_three_at_once_and_the_order_of_beginnings_is_that_of_ends() -> None:
    for clip in CLIPS:
        for events in (clip.sounds or (), clip.shapes or ()):
            moments = np.arange(0, clip.duration, 0.02)
            there = [(moments >= e.start) & (moments < e.end) for e in events]
            assert np.sum(there, axis=0).max(initial=0) <= 2
            for a, b in pairwise(events):
                assert a.start + 0.3 <= b.start
                assert a.end < b.end
                shared = a.end - b.start
                assert shared <= 0 or shared >= 1.19
            assert all(0 <= e.start < e.end <= clip.duration for e in events)
            assert all(e.end - e.start >= 1.5 or getattr(e, "short", False) for e in events)
        if short := clip.short:
            others = [s for s in clip.sounds or () if s is not short]
            assert all(s.end <= short.start or s.start >= short.end for s in others)


def test_no_name_occurs_twice() -> None:
    for clip in CLIPS:
        for names in (
            [s.instrument for s in clip.sounds or ()],
            [s.shape for s in clip.shapes or ()],
            [s.colour for s in clip.shapes or ()],
            [w.text for w in clip.words],
        ):
            assert len(set(names)) == len(names)


def test_shapes_at_the_same_time_and_words_do_not_cover_each_other() -> None:
    for clip in CLIPS[::5]:
        for t in np.arange(0.25, clip.duration, 1.7):
            here = [s for s in clip.shapes or () if s.start <= t < s.end]
            masks = [shape_mask(s, float(t), clip.width, clip.height) for s in here]
            assert not any((a & b).any() for a, b in combinations(masks, 2))
            frame = np.zeros((clip.height, clip.width, 3))
            for shown in (w for w in clip.words if w.start <= t < w.end):
                draw_word(frame, shown)
            assert not any((frame.any(2) & mask).any() for mask in masks)


def test_a_digit_and_a_word_do_not_cover_each_other() -> None:
    for clip in CLIPS:
        if clip.flash:
            assert all(shown.band not in clip.flash.corner for shown in clip.words)


def test_letters_differ_and_words_fit_the_frame() -> None:
    assert {image.shape for image in LETTERS.values()} == {(7, 5)}
    assert len({image.tobytes() for image in LETTERS.values()}) == 26 == len(LETTERS)
    assert not set(WORDS) & {*INSTRUMENTS, *SHAPES, *COLOURS}
    for text in WORDS:
        frame = np.full((112, 112, 3), 200.0)
        draw_word(frame, Word(text, 0.0, 1.0, "bottom"))
        ink = (frame == INK).all(2)
        rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
        read = ink[rows[0] : rows[-1] + 1 : 2, columns[0] : columns[-1] + 1 : 2]
        assert (read == dots(text)[:, dots(text).any(0).argmax() :][:, : read.shape[1]]).all()
        assert (frame[:80] == 200).all()
    with pytest.raises(ValueError, match="too long for a frame of 20 pixels"):
        draw_word(np.zeros((112, 20, 3)), Word("stone", 0.0, 1.0, "top"))


def test_a_word_is_in_the_frames_of_its_time_only() -> None:
    clip = next(c for c in CLIPS if c.words)
    shown = clip.words[0]
    row = 1 if shown.band == "top" else clip.height - 2
    for t, there in ((shown.start + 0.01, True), (shown.end - 0.01, True), (shown.end, False)):
        frame = draw_frame(clip, t)
        assert (frame[row] == BAND).all() == there


def playing(clip: Clip, name: str) -> np.ndarray:
    """When something is there, at every hundredth of a second."""
    things = [*(clip.sounds or ()), *(clip.shapes or ()), *clip.words]
    moments = np.arange(0, clip.duration, 0.01)
    found = np.zeros(len(moments), bool)
    for thing in things:
        texts = {getattr(thing, key, None) for key in ("instrument", "shape", "text")}
        if name in texts:
            found |= (moments >= thing.start) & (moments < thing.end)
    return found


def row_of(clip: Clip, kind: str) -> list[str]:
    """Names of a timeline in the order in which they are first there."""
    names = [s.instrument for s in clip.sounds or ()]
    if kind == "p":
        names = [s.shape for s in clip.shapes or ()]
    return sorted(names, key=lambda name: int(playing(clip, name).argmax()))


def most_with(clip: Clip, name: str, kind: str) -> str:
    """What is there for most of the time of something."""
    time = playing(clip, name)
    return max(row_of(clip, kind), key=lambda other: int((playing(clip, other) & time).sum()))


def check(clip: Clip, fact: Fact) -> bool:
    """Compute an answer again from what is there at every moment; False if it is not known how."""
    key, what = fact.kind.split("_", 1)
    names = dict(fact.slots)
    x, y = names.get("x", ""), names.get("y", "")
    row = row_of(clip, key)
    colours = {s.shape: s.colour for s in clip.shapes or ()}
    if what in ("first", "last"):
        wanted: object = row[0 if what == "first" else -1]
    elif what == "count":
        wanted = str(len(set(row)))
    elif what == "is":
        wanted = "yes" if playing(clip, x).any() else "no"
    elif what == "list":
        wanted = re.split(", | and ", fact.answer) == row
        return bool(wanted) and len(set(fact.choices)) == len(fact.choices)
    elif what == "with":
        wanted = "yes" if (playing(clip, x) & playing(clip, y)).any() else "no"
    elif what == "order":
        wanted = "yes" if row.index(x) < row.index(y) else "no"
    elif what == "longer":
        wanted = max((x, y), key=lambda name: int(playing(clip, name).sum()))
    elif what == "between":
        wanted = row[row.index(x) + 1]
        assert row[row.index(x) + 2] == y
    elif what == "starts_during":
        inside = [n for n in row if n != x and playing(clip, x)[playing(clip, n).argmax()]]
        (wanted,) = inside
    elif what == "describe":
        shape = x if key == "p" else most_with(clip, x, "p")
        wanted = f"{colours[shape]} {shape}"
    elif what in ("colour_of", "shape_of"):
        wanted = colours[x] if what == "colour_of" else {c: s for s, c in colours.items()}[x]
    elif what in ("shape_at_word", "shape_with"):
        wanted = most_with(clip, x, "p")
    elif what == "colour_with":
        wanted = colours[most_with(clip, x, "p")]
    elif what in ("sound_at_word", "sound_with"):
        wanted = most_with(clip, x, "s")
    elif what == "word_with":
        (wanted,) = [w.text for w in clip.words if (playing(clip, w.text) & playing(clip, x)).any()]
    elif what == "two":
        wanted = f"{most_with(clip, x, 'p')} and {most_with(clip, y, 'p')}"
    elif what in ("word", "word_first", "word_last"):
        texts = sorted(clip.words, key=lambda w: w.start)
        wanted = texts[-1 if what == "word_last" else 0].text
    else:
        return fact.kind in ("s_short", "p_digit", "p_digit_colour", "p_corner")
    return fact.answer == wanted


@pytest.mark.parametrize("clip", CLIPS[::3], ids=lambda c: str(c.seed))
def test_every_answer_agrees_with_what_is_there_at_each_moment(clip: Clip) -> None:
    for fact in facts_of(clip):
        assert fact.answer in fact.choices
        assert fact.kind in SPOKEN_SEEN or check(clip, fact), (clip.seed, fact)


def test_every_kind_is_asked_and_worded_and_says_when_its_evidence_is() -> None:
    seen: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    for clip in CLIPS[::3]:
        for fact in facts_of(clip):
            seen[fact.kind] += 1
            for known in (True, False):
                text = word(fact, rng, known).text.lower()
                assert all(name in text for _, name in fact.slots)
                assert "{" not in text
            found = spans(clip, fact)
            nowhere = fact.kind in ("s_count", "p_count", "s_said_count") or (
                fact.answer == "no" and fact.kind in ("s_is", "p_is", "s_said_is", "b_said_shown")
            )
            assert bool(found) != nowhere, fact.kind
            assert all(0 <= a < b <= clip.duration for a, b in found)
            if clip.flash and fact.kind == "p_digit":
                assert fact.answer == clip.flash.digit in DIGITS
    assert seen.keys() >= WIDE_SEEN.keys()
    assert {"s_short", "p_digit", "p_corner", "b_colour_with"} <= seen.keys()


def test_two_moments_have_two_spans() -> None:
    for clip in CLIPS[:20]:
        for fact in facts_of(clip):
            if fact.kind in ("b_two", "s_longer", "p_longer", "s_between", "p_between", "s_with"):
                assert len(set(spans(clip, fact))) == 2


def test_overlapping_instruments_are_both_in_the_sound() -> None:
    clip = next(
        c
        for c in CLIPS
        if c.sounds and c.duration < 30 and c.sounds[0].end > c.sounds[1].start + 1.1
    )
    assert clip.sounds is not None
    bank = load_bank("train")
    whole = render_sound(clip, bank)
    first = render_sound(Clip(**{**vars(clip), "sounds": clip.sounds[:1]}), bank)
    assert whole is not None
    assert first is not None
    a, b = (round(t * 16_000) for t in (clip.sounds[1].start + 0.1, clip.sounds[0].end - 0.1))
    rest = whole[a:b] - first[a:b]
    assert np.sqrt((first[a:b] ** 2).mean()) > 0.005
    assert np.sqrt((rest**2).mean()) > 0.005


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="within 6 to 60 s"):
        WideOptions(max_s=61)
    with pytest.raises(ValueError, match="overlap is a probability"):
        WideOptions(overlap=1.5)
    assert not any(draw_wide(seed, WideOptions(words=0.0)).words for seed in range(20))


def test_a_wide_set_is_built_from_fresh_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testset, "fingerprint", lambda clip: "")
    lines, _ = testset.build(testset.fresh_seeds(910_000_000, 12), wide=True)
    assert len(lines) == 72
    assert {line["category"] for line in lines} & WIDE_SEEN.keys()
    assert all(line["answer"] in line["choices"] for line in lines)
    assert lines == testset.build(testset.fresh_seeds(910_000_000, 12), wide=True)[0]


@pytest.mark.slow
def test_the_script_writes_a_wide_set_that_eval_reads(tmp_path: Path) -> None:
    script = Path(testset.__file__).parents[1] / "make_clips.py"
    wanted = ["--seed", "910000003", "--count", "1", "--questions", "--wide"]
    command = [sys.executable, script, "--out", tmp_path / "wide", *wanted]
    subprocess.run(command, check=True, capture_output=True)
    found = read_set(f"avsynth:{tmp_path / 'wide'}")
    assert found.name == "avsynth-wide"
    assert len(found.items) == 6
    assert found.items[0].video.is_file()


@pytest.mark.slow
def test_the_script_refuses_wide_without_questions() -> None:
    script = Path(testset.__file__).parents[1] / "make_clips.py"
    done = subprocess.run(
        [sys.executable, script, "--out", "x", "--wide"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--wide goes with --questions." in done.stderr
