"""A pool of encoder outputs with wide clips among the others, and questions about them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from avsynth.questions import ALL_SEEN
from avsynth.sound import load_bank
from avsynth.wide_wordings import SPOKEN_SEEN, WIDE_SEEN
from avsynth.world import Clip, draw_clip
from lab.shape import SPOKEN, speaker
from lab.teaching import LabOptions
from recipe import pool
from recipe.answering import load_demo
from recipe.labels import video_labels
from recipe.language import Source
from recipe.layout import audio_tokens
from recipe.pool import build_pool, load_pool
from recipe.shape import parts
from recipe.vocab import build_tokenizer

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
FIRST = 650_000_000
NOTHING = torch.nn.Identity()


def blank(audio, vision, clip: Clip, bank, rng) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Zeros in place of the towers' outputs, of their shapes."""
    a = v = None
    if clip.sounds is not None:
        a = np.zeros((audio_tokens(round(clip.duration * 16_000)), SPOKEN), np.float32)
    if clip.shapes is not None:
        labels = video_labels(clip)
        v = np.zeros((labels["grids"] * labels["rows"] * labels["cols"], SPOKEN), np.float32)
    return a, v


def made(path: Path, count: int, **options: float) -> list:
    build_pool(NOTHING, NOTHING, speaker(), {}, count, path, FIRST, log=print, **options)
    return load_pool(path, speaker())


def test_by_default_a_pool_holds_the_clips_of_before(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pool, "tower_vectors", blank)
    assert LabOptions().wide_share == 0
    samples = made(tmp_path / "pool.pkl", 5, wide_share=LabOptions().wide_share)
    assert [s.clip for s in samples] == [draw_clip(FIRST + i) for i in range(5)]


def test_a_share_of_wide_clips_is_asked_their_own_questions(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pool, "tower_vectors", blank)
    samples = made(tmp_path / "pool.pkl", 10, wide_share=0.4, wide_s=14.0)
    wide = [s for s in samples if s.clip.wide]
    assert len(wide) == 4
    assert all(10 <= s.clip.duration <= 14 for s in wide)
    assert any(s.clip.speech for s in wide)
    others = [s.clip for s in samples if not s.clip.wide]
    assert others == [draw_clip(c.seed) for c in others]
    options = LabOptions(clips=2, questions=12, real_share=1.0, wide_share=0.4)
    source = Source(build_tokenizer(), speaker(), options.source(), wide)
    kinds = set()
    for _ in range(4):
        batch = next(source)
        assert batch.ids.shape[1] < 14 * (25 + 16) + 12 * 80, "a row stays small"
        assert torch.isfinite(batch.av).all()
        kinds |= {q.kind for q in batch.questions}
    assert kinds & WIDE_SEEN.keys()
    assert kinds & SPOKEN_SEEN.keys()
    assert kinds <= ALL_SEEN.keys()


def test_the_share_and_the_length_are_checked() -> None:
    with pytest.raises(ValueError, match="wide_share is a share of clips"):
        LabOptions(wide_share=1.5)
    with pytest.raises(ValueError, match="6 to 60 s, wide_s says 90"):
        LabOptions(wide_s=90)


@pytest.mark.slow
def test_the_encoders_hear_and_see_wide_clips(tmp_path) -> None:
    model, _, _ = load_demo(SAMPLES / "demo-model")
    audio, vision, _ = parts(model)
    path, bank = tmp_path / "pool.pkl", load_bank("train")
    build_pool(audio, vision, speaker(), bank, 4, path, FIRST, wide_share=0.5, wide_s=12.0)
    samples = load_pool(path, speaker())
    assert [s.clip.wide for s in samples] == [False, True, False, True]
    for sample in samples:
        assert sample.vectors.shape == (len(sample.layout.index), SPOKEN)
        assert np.isfinite(sample.vectors).all()
        assert sample.vectors.std() > 0.1


@pytest.mark.slow
def test_the_script_refuses_a_share_that_is_none() -> None:
    command = [sys.executable, SAMPLES / "train_lab.py", "--out", "x", "--wide-share", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "wide_share is a share of clips, 2.0 is not" in done.stderr
