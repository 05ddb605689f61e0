"""A profiled clip read again: contact sheet data and overlay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.overlay import write_changed
from omnidrop.clip.probe import probe
from omnidrop.engine.model import Model
from omnidrop.errors import UsageError
from omnidrop.profiling.marking import enlargement
from omnidrop.profiling.replay import overlay, replay
from omnidrop.profiling.result import Profile
from omnidrop.testing import media


def test_replay_collects_frames_and_audio(model: Model, found: Profile, film: Path) -> None:
    run = found.runs[0]
    sight = replay(model, film, run, layer=1)
    assert (sight.layer, len(sight.chunks)) == (1, len(run.trace.chunks))
    assert sight.question == run.trace.settings["question"]
    assert (sight.answer, sight.moments) == (run.answer, run.trace.moments)
    for chunk, told in zip(sight.chunks, run.trace.chunks, strict=True):
        assert chunk.frame is not None
        assert chunk.patches is not None
        assert chunk.frame.shape[:2] == tuple(run.trace.clip["size"])
        assert chunk.video_kept == told.video[1]
        assert chunk.relevance == told.relevance
        assert int(chunk.patches.sum()) <= chunk.video_kept
        assert chunk.audio is not None
        assert int(chunk.audio.sum()) == told.audio[1]
        assert len(chunk.audio) == told.audio_total
    with pytest.raises(UsageError, match="no layer 99"):
        replay(model, film, run, layer=99)


@pytest.mark.slow
def test_overlay_keeps_rate_and_sound_and_has_a_caption(
    model: Model, found: Profile, film: Path, tmp_path: Path
) -> None:
    target = tmp_path / "seen.mp4"
    overlay(model, film, found.runs[0], target)
    before, after = probe(film), probe(target)
    assert before.video is not None
    assert after.video is not None
    factor = enlargement(before.video.width)
    width, height = factor * before.video.width, factor * before.video.height
    assert after.video.width == width
    assert height + 40 < after.video.height < height + 0.5 * width
    assert after.video.average_fps == pytest.approx(before.video.average_fps, rel=0.01)
    assert after.duration == pytest.approx(before.duration, abs=0.2)
    with open_clip(film) as old, open_clip(target) as new:
        sound = [np.concatenate(list(clip.audio_blocks())) for clip in (old, new)]
        dim = [next(clip.frame_chunks()).frames.float().mean() for clip in (old, new)]
    count = min(map(len, sound))
    assert count > 4 * 16_000
    assert np.corrcoef(sound[0][:count], sound[1][:count])[0, 1] > 0.95
    assert dim[1] < 0.95 * dim[0]
    with pytest.raises(UsageError, match="exists"):
        overlay(model, film, found.runs[0], target)
    assert [p.name for p in tmp_path.iterdir()] == ["seen.mp4"]


def test_a_failed_overlay_leaves_nothing(film: Path, tmp_path: Path) -> None:
    def fail(frame: np.ndarray, at: float) -> np.ndarray:
        raise RuntimeError("no")

    with open_clip(film, ClipOptions(start=1.0, end=2.0)) as clip:
        with pytest.raises(RuntimeError):
            write_changed(clip, tmp_path / "x.mp4", fail)
        assert not list(tmp_path.iterdir())
        write_changed(clip, tmp_path / "x.mp4", lambda frame, at: 255 - frame)
    assert probe(tmp_path / "x.mp4").duration == pytest.approx(1.0, abs=0.15)


def test_overlay_of_a_clip_cut_short(tmp_path: Path) -> None:
    film = media.truncated(media.faststart_mp4(tmp_path / "cut.mp4", seconds=4.0), keep=0.6)
    with open_clip(film) as clip:
        write_changed(clip, tmp_path / "x.mkv", lambda frame, at: frame)
    after = probe(tmp_path / "x.mkv")
    assert after.video is not None
    assert after.audio
    assert after.duration > 1.0


def test_overlay_keeps_colours(film: Path, tmp_path: Path) -> None:
    def paint(frame: np.ndarray, at: float) -> np.ndarray:
        return np.full_like(frame, (200, 30, 60))

    with open_clip(film, ClipOptions(end=1.0, audio=False)) as clip:
        write_changed(clip, tmp_path / "red.mp4", paint)
    with open_clip(tmp_path / "red.mp4") as clip:
        frame = next(clip.frame_chunks()).frames[0].float()
    assert frame.mean(dim=(1, 2)).tolist() == pytest.approx([200, 30, 60], abs=4)
