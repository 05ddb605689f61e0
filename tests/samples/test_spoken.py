"""Spoken words in wide clips: the bank, where and how loud they are heard, questions, balance."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from avsynth import speech, testset, wordings
from avsynth.evidence import spans
from avsynth.questions import ALL_SEEN, ALL_UNSEEN, LOOSE, Fact, word
from avsynth.sound import load_bank, render_sound
from avsynth.speech import FOLDER, LEVEL, RATE, VOICES, file_name, recording, spoken, voices
from avsynth.wide import APART_S, MAX_SAID, WideOptions, draw_wide
from avsynth.wide_questions import wide_facts
from avsynth.wide_wordings import SPOKEN_SEEN, SPOKEN_UNSEEN, WIDE_SEEN, WIDE_UNSEEN
from avsynth.world import WORDS, Clip, draw_clip

CLIPS = [draw_wide(seed, WideOptions(max_s=30)) for seed in range(1000, 1400)]
VOICED = [clip for clip in CLIPS if clip.speech]
FACTS = [(clip, wide_facts(clip, np.random.default_rng(clip.seed))) for clip in VOICED]


def pitch(sound: np.ndarray) -> float:
    """Median pitch of a recording in Hz, from the autocorrelation of its loud parts."""
    found, size = [], 1024
    for at in range(0, len(sound) - size, 256):
        piece = sound[at : at + size] * np.hanning(size)
        if np.sqrt((piece**2).mean()) < 0.03:
            continue
        alike = np.correlate(piece, piece, "full")[size - 1 :]
        low, high = RATE // 400, RATE // 60
        lag = low + int(alike[low:high].argmax())
        if alike[lag] > 0.4 * alike[0]:
            found.append(RATE / lag)
    return float(np.median(found))


def test_the_bank_is_small_trimmed_and_level() -> None:
    assert sum((FOLDER / file_name(test)).stat().st_size for test in (True, False)) < 600_000
    for voice in VOICES:
        for text in WORDS:
            sound = recording(voice.name, text) / 32768
            assert 0.15 * RATE < len(sound) < speech.SLOT_SAMPLES
            assert np.sqrt((sound**2).mean()) == pytest.approx(LEVEL, rel=0.05)
            assert np.abs(sound).max() < 0.6
            loud = np.flatnonzero(np.abs(sound) > 0.05 * np.abs(sound).max())
            assert loud[0] < 0.06 * RATE
            assert len(sound) - loud[-1] < 0.12 * RATE


def test_voices_differ_and_some_are_kept_for_the_test() -> None:
    assert len(voices(False)) >= 4
    assert not {v.name for v in voices(True)} & {v.name for v in voices(False)}
    for test in (True, False):
        assert {v.height for v in voices(test)} == set(speech.HEIGHTS)
    for text in WORDS:
        sounds = [recording(v.name, text) for v in VOICES]
        assert not any(np.array_equal(a, b) for a, b in combinations(sounds, 2))


@pytest.mark.parametrize("voice", VOICES, ids=lambda v: v.name)
def test_a_voice_is_clearly_low_or_high(voice: speech.Voice) -> None:
    """Also when it is raised or lowered as far as a clip does that."""
    heard = np.median([pitch(recording(voice.name, text) / 32768) for text in WORDS])
    if voice.height == "low":
        assert 60 < heard < 115
    else:
        assert 180 < heard < 280


def profile(sound: np.ndarray) -> np.ndarray:
    """Spectrum of a word over its own time, 12 moments of 20 bands, without pitch and level."""
    moments = np.linspace(0, max(0, len(sound) - 512), 12).astype(int)
    power = np.abs(np.fft.rfft([sound[m : m + 512] * np.hanning(512) for m in moments])) ** 2
    edges = np.geomspace(3, 240, 21).astype(int)
    bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-4)
    return (bands - bands.mean()) / bands.std()


def test_words_of_the_tests_voices_are_nearest_to_the_same_words() -> None:
    known = [(t, profile(recording(v.name, t) / 32768)) for v in voices(False) for t in WORDS]
    right = 0
    for voice in voices(True):
        for text in WORDS:
            own = profile(recording(voice.name, text) / 32768)
            right += min(known, key=lambda item: float(((item[1] - own) ** 2).sum()))[0] == text
    assert right >= 0.9 * len(WORDS) * len(voices(True))


def test_a_shifted_word_is_shorter_or_longer() -> None:
    name = VOICES[0].name
    lengths = [len(spoken(name, "moon", shift)) for shift in (-1.5, 0.0, 1.5)]
    assert lengths[0] > lengths[1] > lengths[2]
    assert lengths[1] == pytest.approx(len(recording(name, "moon")), abs=1)
    with pytest.raises(KeyError):
        recording(name, "piano")


def test_without_speech_the_clips_are_those_of_before_there_was_any() -> None:
    """The hash was taken before speech was added."""
    digest = hashlib.sha256()
    for seed in range(40):
        clip = draw_wide(seed, WideOptions(spoken=0.0))
        digest.update(repr((clip, clip.words)).encode())
    assert digest.hexdigest()[:16] == "56ecfb72dcbe6474"
    for clip in CLIPS[:60]:
        plain = draw_wide(clip.seed, WideOptions(max_s=30, spoken=0.0))
        assert plain.speech == ()
        assert (plain.shapes, plain.flash, plain.words) == (clip.shapes, clip.flash, clip.words)
        assert plain.noise_db == clip.noise_db
    assert draw_clip(3).speech == ()
    assert not draw_clip(3).wide
    assert CLIPS[0].wide


def test_words_are_said_one_after_another_inside_the_clip() -> None:
    assert all(clip.sounds is not None for clip in VOICED)
    for clip in VOICED:
        assert 1 <= len(clip.speech) <= MAX_SAID
        assert len({said.text for said in clip.speech}) == len(clip.speech)
        assert {said.voice for said in clip.speech} <= {v.name for v in voices(False)}
        for said in clip.speech:
            assert 0.2 < said.start < said.end < clip.duration - 0.2
            heard = len(spoken(said.voice, said.text, said.shift)) / RATE
            assert said.end - said.start == pytest.approx(heard, abs=0.002)
        assert all(a.end + APART_S - 0.01 <= b.start for a, b in pairwise(clip.speech))
        if clip.short:
            assert not there(clip.short, clip.speech), "the brief note is not spoken over"
    tested = [draw_wide(seed, WideOptions(test=True)) for seed in range(60)]
    used = {said.voice for clip in tested for said in clip.speech}
    assert used == {v.name for v in voices(True)}


def there(said: object, events: tuple | None) -> list:
    """Events that share any time with another."""
    return [e for e in events or () if e.start < said.end and e.end > said.start]


def test_some_are_said_over_music_some_in_a_pause_and_some_while_a_shape_is_shown() -> None:
    said = [(clip, each) for clip in VOICED for each in clip.speech]
    over = sum(bool(there(each, clip.sounds)) for clip, each in said)
    shown = sum(bool(there(each, clip.shapes)) for clip, each in said)
    assert 0.05 < 1 - over / len(said) < 0.5
    assert 0.3 < shown / len(said) < 0.95
    for clip in VOICED:
        assert all(s.end - s.start >= 1.5 or s.short for s in clip.sounds or ())
        assert all(a.start < b.start for a, b in pairwise(clip.sounds or ()))


@pytest.mark.parametrize("clip", VOICED[:6], ids=lambda c: str(c.seed))
def test_words_are_heard_above_the_rest_and_nothing_else_changes(clip: Clip) -> None:
    bank = load_bank("train")
    heard = render_sound(clip, bank)
    music = render_sound(replace(clip, speech=()), bank)
    assert heard is not None
    assert music is not None
    other = np.ones(len(heard), bool)
    for said in clip.speech:
        word_ = spoken(said.voice, said.text, said.shift)
        at = round(said.start * RATE)
        part = heard[at : at + len(word_)].astype(np.float64)
        alike = (part * word_).sum() / np.sqrt((part**2).sum() * (word_**2).sum())
        assert alike > 0.8, "most of what is heard is the word"
        assert np.sqrt((part**2).mean()) > 0.035
        edge = round(speech.RAMP_S * RATE)
        other[at - edge : at + len(word_) + edge] = False
    assert (heard[other] == music[other]).all()
    assert other.mean() > 0.5


def playing(events: tuple, moments: np.ndarray) -> np.ndarray:
    """Which events are there at each moment, (events, moments)."""
    rows = [(moments >= e.start) & (moments < e.end) for e in events]
    return np.array(rows).reshape(len(events), len(moments))


def answer_again(clip: Clip, fact: Fact) -> str:
    """Compute an answer from what is there at every hundredth of a second."""
    moments = np.arange(0, clip.duration, 0.01)
    order = sorted(clip.speech, key=lambda said: said.end)
    texts = [said.text for said in order]
    said_when = dict(zip(texts, playing(tuple(order), moments), strict=True))
    heights = {said.text: {v.name: v.height for v in VOICES}[said.voice] for said in order}
    named = [*(clip.sounds or ()), *(clip.shapes or ())]
    when = {getattr(e, "instrument", getattr(e, "shape", "")): e for e in named}
    x = dict(fact.slots).get("x", "")
    if fact.kind in ("s_said", "s_said_first", "s_said_last"):
        assert (fact.kind == "s_said") == (len(texts) == 1)
        return texts[-1 if fact.kind == "s_said_last" else 0]
    if fact.kind == "s_said_after":
        return texts[texts.index(x) + 1]
    if fact.kind == "s_said_count":
        every = np.any(list(said_when.values()), axis=0)
        return str(int((np.diff(every.astype(int)) == 1).sum()))
    if fact.kind == "s_said_is":
        return "yes" if x in texts else "no"
    if fact.kind == "s_voice":
        return heights[x]
    if fact.kind == "s_said_by":
        (one,) = [text for text in texts if heights[text] == x]
        return one
    if fact.kind in ("s_said_with", "b_said_with"):
        span = playing((when[x],), moments)[0]
        (one,) = [text for text in texts if (said_when[text] & span).any()]
        return one
    if fact.kind in ("s_sound_at_said", "b_shape_at_said"):
        events = clip.sounds if fact.kind[0] == "s" else clip.shapes
        (one,) = [
            getattr(e, "instrument", getattr(e, "shape", ""))
            for e, row in zip(events or (), playing(events or (), moments), strict=True)
            if (row & said_when[x]).any()
        ]
        return one
    assert fact.kind == "b_said_shown"
    return "yes" if set(texts) & {w.text for w in clip.words} else "no"


def test_every_answer_agrees_with_what_is_there_at_each_moment() -> None:
    seen: Counter[str] = Counter()
    for clip, facts in FACTS[:60]:
        for fact in facts:
            if fact.kind in SPOKEN_SEEN:
                seen[fact.kind] += 1
                assert fact.answer in fact.choices
                assert answer_again(clip, fact) == fact.answer, (clip.seed, fact)
    assert seen.keys() == SPOKEN_SEEN.keys()


def test_evidence_is_when_the_word_is_said() -> None:
    for clip, facts in FACTS[:60]:
        times = {said.text: (said.start, said.end) for said in clip.speech}
        for fact in facts:
            found = spans(clip, fact)
            if fact.kind == "s_said_count" or (
                fact.answer == "no" and fact.kind in ("s_said_is", "b_said_shown")
            ):
                assert found == ()
            elif fact.kind == "s_said_after":
                assert found == (times[dict(fact.slots)["x"]], times[fact.answer])
            elif fact.kind == "b_said_shown":
                heard, read = found
                (text,) = [t for t, span in times.items() if span == heard]
                assert read in [(w.start, w.end) for w in clip.words if w.text == text]
            elif fact.kind in SPOKEN_SEEN:
                asked = {fact.answer, *dict(fact.slots).values()} & times.keys()
                assert found == tuple(times[text] for text in asked)


def answers(kind: str) -> Counter[str]:
    return Counter(f.answer for _, facts in FACTS for f in facts if f.kind == kind)


def share(found: Counter[str]) -> float:
    """Share of the most frequent answer: what a guess that knows only the kind gets right."""
    return max(found.values()) / found.total()


def test_a_guess_that_knows_only_the_question_gains_nothing() -> None:
    named = Counter()
    for kind in ("s_said", "s_said_first", "s_said_last", "s_said_after", "s_said_with"):
        named += answers(kind)
    assert named.keys() == set(WORDS)
    assert share(named) < 2 / len(WORDS)
    assert share(answers("s_said_count")) < 0.36
    for kind in ("s_said_is", "s_voice", "b_said_shown"):
        assert len(answers(kind)) == 2
        assert share(answers(kind)) < 0.6, kind
    for kind in ("s_sound_at_said", "b_shape_at_said"):
        assert share(answers(kind)) < 0.3, kind


def test_a_guess_that_reads_the_screen_or_counts_by_length_gains_nothing() -> None:
    asked: Counter[tuple[str, bool]] = Counter()
    for clip, facts in FACTS:
        shown = {w.text for w in clip.words}
        said = {s.text for s in clip.speech}
        for fact in facts:
            if fact.kind == "s_said_is" and shown:
                asked[fact.answer, dict(fact.slots)["x"] in shown] += 1
            if fact.choices == WORDS:
                assert fact.answer not in shown & said, "nor does one that only hears"
    for known in (True, False):
        assert 0.35 < asked["yes", known] / (asked["yes", known] + asked["no", known]) < 0.65
    long = [clip.duration > 20 for clip in VOICED]
    for many in range(1, MAX_SAID + 1):
        part = [a for a, clip in zip(long, VOICED, strict=True) if len(clip.speech) == many]
        assert abs(np.mean(part) - np.mean(long)) < 0.2


def test_wordings_are_apart_from_each_other_and_from_the_others() -> None:
    assert SPOKEN_SEEN.keys() == SPOKEN_UNSEEN.keys()
    assert not SPOKEN_SEEN.keys() & (wordings.SEEN.keys() | WIDE_SEEN.keys())
    tables = (wordings.SEEN, wordings.UNSEEN, WIDE_SEEN, WIDE_UNSEEN, SPOKEN_SEEN, SPOKEN_UNSEEN)
    sets = [{form for forms in table.values() for form in forms} for table in tables]
    assert not any(a & b for a, b in combinations(sets, 2))


def test_where_words_are_said_nobody_asks_what_you_hear() -> None:
    """The answer would be an instrument, and a word is heard too."""
    rng = np.random.default_rng(0)
    for _, facts in FACTS[:40]:
        for fact in facts:
            assert fact.exact
            for known in (True, False):
                text = word(fact, rng, known).text.lower()
                assert not any(loose in text for loose in LOOSE)
                assert all(value in text for _, value in fact.slots)
    for table in (ALL_SEEN, ALL_UNSEEN):
        for kind in {f.kind for _, facts in FACTS for f in facts}:
            assert any(not any(loose in form for loose in LOOSE) for form in table[kind]), kind
    quiet = next(clip for clip in CLIPS if clip.sounds and not clip.speech)
    facts = wide_facts(quiet, rng)
    assert not any(fact.exact for fact in facts)
    assert not {fact.kind for fact in facts} & SPOKEN_SEEN.keys()


def test_a_set_of_test_clips_asks_about_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testset, "fingerprint", lambda clip: "")
    lines, _ = testset.build(testset.fresh_seeds(910_000_000, 40), wide=True)
    about = [line for line in lines if line["category"] in SPOKEN_SEEN]
    assert len(about) > 0.1 * len(lines)
    assert {line["family"] for line in about} == {"sound", "both"}
    assert {line["wording"] for line in about} == {"seen", "unseen"}
    assert len({line["category"] for line in about}) >= 10
    kept = {v.name for v in voices(True)}
    for line in about:
        assert {said.voice for said in testset.wide_clip(line["seed"]).speech} <= kept


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="spoken is a probability"):
        WideOptions(spoken=-0.1)


def test_nothing_but_the_script_that_made_the_bank_needs_espeak() -> None:
    samples = Path(testset.__file__).parents[1]
    code = "import make_clips, sys; print([m for m in sys.modules if 'espeak' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=samples
    )
    assert done.stdout.strip() == "[]"
