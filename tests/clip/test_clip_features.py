"""Features against the reference: golden patches, and the feature extractor of transformers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnidrop.clip.log_mel import LogMel, log_mel, mel_filters
from omnidrop.clip.patches import patches, resize_frames, target_size
from omnidrop.clip.specs import AudioSpec, MediaSpec, VideoSpec
from omnidrop.errors import MediaError

transformers = pytest.importorskip("transformers")


GOLDEN = Path(__file__).parent / "golden"  # made with transformers' own video processor
REFERENCE = json.loads((GOLDEN / "video_patches.json").read_text())


@pytest.mark.parametrize("case", sorted(REFERENCE["cases"]))
def test_patches_equal_golden_values(case):
    limits = REFERENCE["cases"][case]
    values = np.load(GOLDEN / "video_patches.npz")
    frames = torch.from_numpy(values[f"{case}/frames"])
    size = target_size(*frames.shape[-2:], len(frames), **limits)
    made, grid = patches(resize_frames(frames, size))
    assert list(grid) == values[f"{case}/grid_thw"].ravel().tolist()
    assert np.abs(made.numpy() - values[f"{case}/patches"]).max() < 1e-5


def test_sizes_equal_golden_values():
    for row in REFERENCE["resize"]:
        asked = row["height"], row["width"], row["frames"]
        assert list(target_size(*asked)) == row["capped"], row
        assert list(target_size(*asked, VideoSpec(total_pixels=None))) == row["plain"], row


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Noise over a tone, with quiet stretches, so that the clamp has something to clamp."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 16_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time) * (np.sin(time * 3) > 0)
    return (tone + random.normal(0, 0.01, samples) * (np.cos(time * 2) > 0)).astype(np.float32)


def reference(audio: np.ndarray, chunk_length: int) -> np.ndarray:
    extractor = transformers.WhisperFeatureExtractor(feature_size=128, chunk_length=chunk_length)
    made = extractor(audio, sampling_rate=16_000, return_attention_mask=True, return_tensors="np")
    return made["input_features"][0][:, made["attention_mask"][0].astype(bool)]


def assert_same(made: torch.Tensor, wanted: np.ndarray) -> None:
    assert made.dtype == torch.float32
    assert tuple(made.shape) == wanted.shape
    assert np.abs(made.numpy() - wanted).max() < 1e-4


def test_mel_filters_equal_whisper():
    wanted = transformers.WhisperFeatureExtractor(feature_size=128).mel_filters
    assert np.abs(mel_filters().numpy() - wanted.T).max() < 1e-7


@given(samples=st.integers(1, 40_000), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_log_mel_equals_whisper(samples, seed):
    audio = sound(samples, seed)
    assert_same(log_mel(audio), reference(audio, 5))


def unpadded_reference(audio: np.ndarray) -> np.ndarray:
    extractor = transformers.WhisperFeatureExtractor(feature_size=128, chunk_length=30)
    made = extractor(
        audio,
        sampling_rate=16_000,
        padding=True,
        truncation=False,
        return_attention_mask=True,
        return_tensors="np",
    )
    return made["input_features"][0][:, made["attention_mask"][0].astype(bool)]


@given(samples=st.integers(201, 40_000), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_log_mel_of_audio_that_is_not_padded(samples, seed):
    audio, spec = sound(samples, seed), AudioSpec(padded_seconds=0)
    made = log_mel(audio, spec)
    assert_same(made, unpadded_reference(audio))
    assert made.shape[1] == spec.frames(samples)


@pytest.mark.parametrize("samples", [40 * 16_000, 40 * 16_000 + 77])
def test_log_mel_of_long_audio_that_is_not_padded(samples):
    audio = sound(samples)
    assert_same(log_mel(audio, AudioSpec(padded_seconds=0)), unpadded_reference(audio))


def test_log_mel_of_unpadded_audio_too_short_to_reflect():
    for samples, frames in ((1, 0), (159, 0), (160, 1), (200, 1)):
        made = log_mel(sound(samples), AudioSpec(padded_seconds=0))
        assert made.shape == (128, frames)
        assert made.isfinite().all()


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 200, 201, 202, 320, 399, 400, 401])
def test_log_mel_of_next_to_nothing(samples):
    audio = sound(samples) + np.float32(0.1)
    assert_same(log_mel(audio), reference(audio, 2))


@pytest.mark.parametrize("short", [0, 1, 39, 40, 41, 100, 159, 160, 199, 200, 201, 260, 400])
def test_log_mel_where_the_reference_reflects_the_end(short):
    audio = sound(32_000 - short)
    assert_same(log_mel(audio, AudioSpec(padded_seconds=2)), reference(audio, 2))
    assert_same(log_mel(audio), reference(audio, 3))


def test_log_mel_of_a_loud_click_after_the_last_valid_frame():
    audio = np.zeros(16_000 + 155, dtype=np.float32)
    audio[:16_000] = sound(16_000) * 1e-3
    audio[-1] = 1.0
    assert_same(log_mel(audio), reference(audio, 3))


def test_log_mel_of_silence():
    assert_same(log_mel(np.zeros(20_000, np.float32)), reference(np.zeros(20_000, np.float32), 2))


@pytest.mark.parametrize("seconds", [300, 301.003])
def test_log_mel_at_and_beyond_300_seconds(seconds):
    audio = sound(int(seconds * 16_000))
    assert_same(log_mel(audio), reference(audio, 300 if seconds == 300 else 302))


def test_log_mel_of_no_samples():
    assert tuple(log_mel(np.zeros(0, np.float32)).shape) == (128, 0)


@given(sizes=st.lists(st.integers(0, 70_000), max_size=8))
@settings(max_examples=20, deadline=None)
def test_log_mel_does_not_depend_on_the_blocks(sizes):
    audio = sound(sum(sizes))
    stream = LogMel()
    for start, end in itertools.pairwise([0, *itertools.accumulate(sizes)]):
        stream.push(audio[start:end])
    assert stream.samples == len(audio)
    assert torch.allclose(stream.finish(), log_mel(audio), atol=1e-5, rtol=0)


def test_log_mel_takes_tensors_and_no_shared_memory():
    audio = sound(5_000)
    buffer = audio.copy()
    stream = LogMel()
    stream.push(buffer)
    buffer[:] = 0
    assert torch.equal(stream.finish(), log_mel(torch.from_numpy(audio)))


def test_log_mel_refuses_misuse():
    stream = LogMel()
    with pytest.raises(ValueError, match="one-dimensional"):
        stream.push(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="one-dimensional"):
        log_mel(np.zeros((2, 3), np.float32))
    stream.finish()
    with pytest.raises(ValueError, match="after finish"):
        stream.push(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="before"):
        stream.finish()


def test_filters_of_a_low_sampling_rate():
    filters = mel_filters(AudioSpec(sampling_rate=1_600, n_mels=4))
    assert tuple(filters.shape) == (4, 201)
    assert bool((filters.sum(1) > 0).all())


@pytest.mark.parametrize(
    ("frames", "tokens"), [(0, 0), (1, 0), (2, 0), (3, 1), (100, 25), (30000, 7500)]
)
def test_audio_token_count(frames, tokens):
    assert MediaSpec().audio_tokens(frames) == tokens


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 768))
@settings(max_examples=200, deadline=None)
def test_sizes_are_whole_tokens(height, width, frames):
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(MediaError):
            target_size(height, width, frames)
        return
    size = target_size(height, width, frames)
    assert min(size) >= 28
    assert not size[0] % 28
    assert not size[1] % 28


def test_a_lower_pixel_limit_is_obeyed():
    height, width = target_size(720, 1280, 8, max_pixels=20_000)
    assert height * width <= 20_000
    assert target_size(3, 300, 8, min_pixels=0) == (28, 308)


def test_an_odd_frame_is_repeated():
    frames = torch.randint(0, 256, (3, 3, 28, 56), dtype=torch.uint8)
    odd, grid = patches(frames)
    even, _ = patches(torch.cat([frames, frames[-1:]]))
    assert grid == (2, 2, 4)
    assert torch.equal(odd, even)


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(2, 3, 28, 28),
        torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
        torch.zeros(0, 3, 28, 28, dtype=torch.uint8),
        torch.zeros(2, 3, 28, 30, dtype=torch.uint8),
    ],
)
def test_patches_refuse_what_they_cannot_cut(frames):
    with pytest.raises(ValueError, match="frames"):
        patches(frames)


def test_log_mel_is_the_same_however_it_is_stored(monkeypatch):
    sound = np.random.default_rng(0).standard_normal(40_000).astype(np.float32) / 10
    whole = log_mel(sound)
    monkeypatch.setattr(LogMel, "_SLAB", 7)
    monkeypatch.setattr(LogMel, "_BATCH", 30)
    assert torch.allclose(log_mel(sound), whole, atol=1e-6)
    assert whole.shape == (128, 250)
