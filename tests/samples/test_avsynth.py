"""AVSynth: clips and questions follow from seeds, answers are right, test wordings are separate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from avsynth import testset
from avsynth.media import fingerprint
from avsynth.picture import draw_frames, frame_times
from avsynth.questions import facts_of, word
from avsynth.ready import ready_clips
from avsynth.sound import load_bank, render_sound
from avsynth.wordings import SEEN, UNSEEN
from avsynth.world import (
    COLOURS,
    CORNERS,
    DIGITS,
    INSTRUMENTS,
    SHAPES,
    TEST_BACKGROUNDS,
    TEST_SEEDS,
    TRAIN_BACKGROUNDS,
    WorldOptions,
    draw_clip,
)

SAMPLES = Path(testset.__file__).parents[1]
LINES = testset.read()


def test_a_seed_always_gives_the_same_clip_and_questions() -> None:
    for seed in (3, 4, 5):
        clip = draw_clip(seed)
        assert clip == draw_clip(seed)
        texts = [
            [word(f, rng).text for f in facts_of(clip, rng)]
            for rng in (np.random.default_rng(1), np.random.default_rng(1))
        ]
        assert texts[0] == texts[1]


@pytest.mark.parametrize("seed", testset.test_seeds()[::12])
def test_test_clips_have_the_recorded_fingerprints(seed: int) -> None:
    assert fingerprint(testset.test_clip(seed)) == testset.read_fingerprints()[str(seed)]


def test_the_question_set_is_large_enough_and_half_sparse() -> None:
    assert len(LINES) >= 400
    assert len({x["video"] for x in LINES}) >= 80
    assert len({x["id"] for x in LINES}) == len(LINES)
    assert sum(x["sparse"] for x in LINES) >= len(LINES) / 2
    for family in ("sound", "picture", "both"):
        assert sum(x["family"] == family for x in LINES) >= 100
    assert 0.4 < sum(x["wording"] == "unseen" for x in LINES) / len(LINES) < 0.6


def test_the_recorded_questions_follow_from_the_seeds() -> None:
    lines, _ = _rebuilt()
    assert lines == LINES


def _rebuilt() -> tuple[list[dict], dict[str, str]]:
    original = testset.fingerprint
    testset.fingerprint = lambda clip: ""  # another test checks rendering
    try:
        return testset.build()
    finally:
        testset.fingerprint = original


def test_a_set_from_other_seeds_shares_no_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testset, "fingerprint", lambda clip: "")
    seeds = testset.fresh_seeds(910_000_000, 2)
    lines, prints = testset.build(seeds)
    assert [int(seed) for seed in prints] == seeds
    assert {tuple(line) for line in lines} == {tuple(LINES[0])}
    assert not {line["id"] for line in lines} & {line["id"] for line in LINES}
    for seed in (5, TEST_SEEDS, testset.test_seeds()[-1]):
        with pytest.raises(ValueError, match="belong to training and the built-in set"):
            testset.fresh_seeds(seed, 1)


def test_wordings_of_the_test_are_not_used_in_training() -> None:
    assert SEEN.keys() == UNSEEN.keys()
    seen = {form for forms in SEEN.values() for form in forms}
    unseen = {form for forms in UNSEEN.values() for form in forms}
    assert not seen & unseen


def test_seeds_and_backgrounds_of_the_test_are_not_used_in_training() -> None:
    assert min(testset.test_seeds()) >= TEST_SEEDS
    assert set(TEST_BACKGROUNDS) & set(TRAIN_BACKGROUNDS) == {"plain"}
    train, test = load_bank("train"), load_bank("test")
    for name in INSTRUMENTS[:-1]:  # kits of the font share some strokes
        assert not {n.tobytes() for n in train[name]} & {n.tobytes() for n in test[name]}


def test_answers_stay_in_the_vocabulary_of_their_family() -> None:
    words = {*INSTRUMENTS, *SHAPES, *COLOURS, *DIGITS, *CORNERS, "yes", "no", "before", "after"}
    for line in LINES:
        assert line["answer"] in words
        assert line["answer"] in line["choices"]


def test_answers_agree_with_the_timeline() -> None:
    """First, last, count and existence are computed again in another way."""
    for seed in range(200, 260):
        clip = draw_clip(seed)
        rng = np.random.default_rng(seed)
        order = sorted(clip.sounds or (), key=lambda s: s.start)
        for fact in facts_of(clip, rng):
            slots = dict(fact.slots)
            if fact.kind == "s_first":
                assert fact.answer == order[0].instrument
            elif fact.kind == "s_last":
                assert fact.answer == order[-1].instrument
            elif fact.kind == "s_count":
                assert int(fact.answer) == len({s.instrument for s in order})
            elif fact.kind == "s_is":
                present = slots["x"] in {s.instrument for s in order}
                assert fact.answer == ("yes" if present else "no")
            elif fact.kind == "p_digit":
                assert clip.flash is not None
                assert fact.answer == clip.flash.digit
            elif fact.kind == "b_sound_at_flash":
                assert clip.flash is not None
                middle = (clip.flash.start + clip.flash.end) / 2
                playing = [s.instrument for s in order if s.start <= middle < s.end]
                assert fact.answer in playing


def test_sparse_events_are_brief() -> None:
    for seed in range(100):
        clip = draw_clip(seed)
        if clip.short:
            assert 0.24 <= clip.short.end - clip.short.start <= 0.51
            names = [s.instrument for s in clip.sounds or ()]
            assert names.count(clip.short.instrument) == 1
        if clip.flash:
            assert 0.49 <= clip.flash.end - clip.flash.start <= 1.01
            sampled = frame_times(clip.duration)
            assert ((sampled >= clip.flash.start) & (sampled < clip.flash.end)).any()
        if clip.silence:
            assert 0.49 <= clip.silence[1] - clip.silence[0] <= 1.01


def test_silence_is_silent_and_sound_is_not() -> None:
    bank = load_bank("train")
    clip = next(c for c in map(draw_clip, range(500)) if c.silence)
    audio = render_sound(clip, bank)
    assert audio is not None
    start, end = (int(t * 16_000) for t in clip.silence or (0, 0))
    quiet = np.sqrt((audio[start + 400 : end - 400] ** 2).mean())
    first = (clip.sounds or ())[0]
    loud = np.sqrt((audio[int(first.start * 16_000) : int(first.end * 16_000)] ** 2).mean())
    assert quiet < loud / 3


def test_frames_show_the_shape_in_its_colour() -> None:
    clip = draw_clip(1, WorldOptions(odd_sizes=1.0, modes=(0, 1, 0)))
    frames = draw_frames(clip, frame_times(clip.duration))
    assert frames.shape[1:] == (clip.height, clip.width, 3)
    assert frames.dtype == np.uint8


@pytest.mark.parametrize("item", ready_clips(), ids=lambda r: r.name)
def test_sample_clips_decode(item) -> None:
    from omnidrop.clip.clip import open_clip

    with open_clip(SAMPLES / f"{item.name}.mp4") as clip:
        assert clip.has_video == (item.clip.shapes is not None)
        assert clip.has_audio == (item.clip.sounds is not None)
        assert abs(clip.duration - item.clip.duration) < 0.3


def test_sample_clips_are_small_and_have_the_stated_formats() -> None:
    items = {r.name: r.clip for r in ready_clips()}
    assert sum((SAMPLES / f"{n}.mp4").stat().st_size for n in items) < 1_000_000
    assert items["silent"].sounds is None
    assert items["portrait"].height > items["portrait"].width
    assert items["long"].duration > 60
    assert (items["duet"].sounds or ())[0].instrument == "piano"


def test_every_question_says_when_its_evidence_is() -> None:
    """Times come from the events; only counting and absence have none."""
    for line in LINES:
        clip = testset.test_clip(line["seed"])
        for start, end in line["evidence"]:
            assert 0 <= start < end <= clip.duration
        nowhere = line["category"] in ("s_count", "p_count") or (
            line["answer"] == "no" and line["category"] in ("s_is", "p_is", "p_flash", "s_silence")
        )
        assert (line["evidence"] == []) == nowhere, line["id"]
        if line["category"] in ("p_digit", "p_corner", "p_colour_at_flash", "b_sound_at_flash"):
            assert clip.flash is not None
            assert line["evidence"] == [[clip.flash.start, clip.flash.end]]
        if line["category"] in ("s_first", "s_last"):
            sounds = clip.sounds or ()
            sound = sounds[0] if line["category"] == "s_first" else sounds[-1]
            assert sound.instrument == line["answer"]
            assert line["evidence"] == [[sound.start, min(sound.end, clip.duration)]]
    assert sum(bool(line["evidence"]) for line in LINES) == 539
