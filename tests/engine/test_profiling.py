"""Profiles on a tiny model and a clip made here: turns, memory, KL, survivors, the dimmed clip."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.overlay import write_changed
from omnidrop.clip.probe import probe
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.session import Model, load
from omnidrop.engine.timing import MemoryWatch, Meter, resident
from omnidrop.errors import BudgetError, UsageError
from omnidrop.models.loading import LoadOptions
from omnidrop.profiling.estimate import estimate
from omnidrop.profiling.machine import matmul_speed
from omnidrop.profiling.measure import first_token_kl, profile
from omnidrop.profiling.replay import overlay, replay
from omnidrop.profiling.result import PREFILL, Profile, summable
from omnidrop.pruning.method import Method
from omnidrop.pruning.methods.uniform import Uniform
from omnidrop.testing import media

QUESTION = "What instrument plays first?"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.mp4(tmp_path_factory.mktemp("film") / "film.mp4", seconds=5.0)


@pytest.fixture(scope="module")
def found(model: Model, film: Path) -> Profile:
    return profile(
        model,
        film,
        QUESTION,
        [Uniform(budget=0.5), Uniform(budget=1.0)],
        options=GenerateOptions(max_new_tokens=4),
        repeats=2,
        warmup=0,
    )


def test_every_run_is_there_and_its_lines_sum_up(found: Profile) -> None:
    assert [run.label for run in found.all] == ["none", "uniform 0.5", "uniform 1"]
    for run in found.all:
        assert len(run.total.samples) == len(run.ttft.samples) == 2
        names = [s.name for s in run.stages]
        for name in ("open", "seek and decode", "log-mel", "vision tower", PREFILL, "detokenise"):
            assert name in names
        for turn in range(2):
            summed = sum(s.seconds.samples[turn] for s in run.stages if summable(s))
            assert summed == pytest.approx(run.total.samples[turn])
        assert all(s.seconds.low >= 0 for s in run.stages)
        assert run.ttft.median < run.total.high


def test_reading_alone(found: Profile) -> None:
    seconds = {s.name: s.seconds for s in found.reading}
    assert list(seconds) == ["seek and decode", "resize and patches", "decode sound", "log-mel"]
    assert all(len(timing.samples) == 2 and timing.low > 0 for timing in seconds.values())


def test_an_unpruned_run_differs_in_nothing(found: Profile) -> None:
    half, whole = found.runs
    assert whole.same_answer
    assert whole.kl == pytest.approx(0.0, abs=1e-9)
    stage = whole.stage(PREFILL)
    assert stage is not None
    assert stage.predicted == 1.0
    assert half.realised == pytest.approx(0.5, abs=0.01)
    assert half.kl > 0
    stage = half.stage(PREFILL)
    assert stage is not None
    assert stage.predicted is not None
    assert 2 < stage.predicted < 3
    assert stage.achieved == pytest.approx((stage.speedup or 0) / stage.predicted)


def test_memory_is_watched_stage_by_stage(found: Profile) -> None:
    peaks = {s.name: s.host_peak for s in found.control.stages}
    if resident() is None:
        assert not any(peaks.values())
    else:
        assert peaks[PREFILL] is not None
        assert 50e6 < peaks[PREFILL] < 50e9


def test_it_is_json_without_survivors(found: Profile) -> None:
    plain = json.loads(json.dumps(found.to_dict(), default=str))
    assert plain["schema"] == "omnidrop.profile/1"
    assert plain["runs"][0]["trace"]["survivors"] == []
    assert found.runs[0].trace.survivors


def test_a_budget_out_of_reach_leaves_the_others_be(model: Model, film: Path) -> None:
    short = GenerateOptions(max_new_tokens=1)
    never = Method(budget=0.5)
    measured = profile(
        model, film, QUESTION, [never, Uniform(budget=0.5)], options=short, repeats=1, warmup=0
    )
    assert [run.label for run in measured.runs] == ["uniform 0.5"]
    assert any("none 0.5 was not measured" in notice for notice in measured.notices)
    with pytest.raises(BudgetError):
        profile(model, film, QUESTION, [never], options=short, repeats=1, warmup=0)
    with pytest.raises(UsageError):
        profile(model, film, QUESTION, [], repeats=0)


def test_kl_by_hand() -> None:
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    by_hand = float((p * (p / q).log()).sum())
    assert first_token_kl(p.log(), q.log() + 3.0) == pytest.approx(by_hand)
    assert first_token_kl(p.log(), p.log()) == 0.0


def test_watch_credits_the_stage_that_holds_the_memory() -> None:
    if resident() is None:
        pytest.skip("this system does not tell a process's memory")
    with MemoryWatch(CPU) as watch:
        meter = Meter(CPU)
        with meter.stage("small"):
            time.sleep(0.01)
        with meter.stage("outer"), meter.stage("large"):
            held = np.ones(30_000_000)
            time.sleep(0.01)
        del held
    peaks = watch.peaks
    large, small = peaks["large"].host or 0, peaks["small"].host or 0
    assert large - small > 200e6
    assert (peaks["outer"].host or 0) >= large
    assert peaks["large"].device is None
    assert Meter(CPU)._watch is None


def test_watch_folds_the_device_peaks_of_nested_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"now": 5, "peak": 5}

    def allocate(count: int) -> None:
        held["now"] = count
        held["peak"] = max(held["peak"], count)

    def reset(device: torch.device) -> None:
        held["peak"] = held["now"]

    monkeypatch.setattr("omnidrop.engine.timing.device_peak", lambda device: held["peak"])
    monkeypatch.setattr("omnidrop.engine.timing.reset_device_peak", reset)
    with MemoryWatch(CPU) as watch:
        meter = Meter(CPU)
        with meter.stage("outer"):
            allocate(7)
            with meter.stage("inner"):
                allocate(90)
                allocate(6)
            with meter.stage("beside", overlapped=True):
                allocate(8)
        with meter.stage("after"):
            allocate(9)
    peaks = {name: memory.device for name, memory in watch.peaks.items()}
    assert peaks == {"outer": 90, "inner": 90, "beside": None, "after": 9}


def test_matmul_speed() -> None:
    assert 1e8 < matmul_speed(CPU, torch.float32, seconds=0.02) < 1e14


def test_tower_flops_are_those_counted(folder: Path, features: Features) -> None:
    # Eager, for the counter does not see inside the CPU's fused attention.
    options = LoadOptions(model=str(folder), device="cpu", dtype="float32", attention="eager")
    adapter = load(options).adapter
    info = adapter.info
    assert features.patches is not None
    assert features.grid is not None
    assert features.mel is not None
    with FlopCounterMode(display=False) as counter:
        adapter.encode_video(features.patches, features.grid)
    assert info.vision.flops(features.grid) == pytest.approx(counter.get_total_flops(), rel=0.02)
    with FlopCounterMode(display=False) as counter:
        (heard,), _ = adapter.encode_audio(features.mel[:, :400])
    # The counter sees the second convolution's input at full rate and the padding of the first.
    assert info.audio.flops(len(heard)) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_estimate_counts_what_the_run_counts(folder: Path, found: Profile, film: Path) -> None:
    told = estimate(
        film,
        QUESTION,
        [Uniform(budget=0.5), Method(budget=0.5)],
        model=LoadOptions(model=str(folder), device="cpu", dtype="float32"),
        tflops=0.001,
    )
    trace = found.runs[0].trace
    assert told.tokens.counted
    assert (told.tokens.video, told.tokens.audio) == (trace.video_tokens, trace.audio_tokens)
    assert told.tokens.text == trace.text_tokens
    assert told.runs[0].flops_prefill == trace.flops_prefill
    assert told.runs[0].kv_cache == trace.memory.kv_cache
    assert told.control.kv_cache == trace.memory.kv_cache_unpruned
    assert told.model["parameters"] == trace.model["parameters"]
    assert any("none 0.5 cannot be run" in notice for notice in told.notices)
    assert json.dumps(told.to_dict())


def test_replay_collects_frames_and_audio(model: Model, found: Profile, film: Path) -> None:
    run = found.runs[0]
    sight = replay(model, film, run, layer=1)
    assert (sight.layer, len(sight.chunks)) == (1, len(run.trace.chunks))
    for chunk, told in zip(sight.chunks, run.trace.chunks, strict=True):
        assert chunk.frame is not None
        assert chunk.patches is not None
        assert chunk.frame.shape[:2] == tuple(run.trace.clip["size"])
        assert chunk.video_kept == told.video[1]
        assert int(chunk.patches.sum()) <= chunk.video_kept
        assert chunk.audio is not None
        assert int(chunk.audio.sum()) == told.audio[1]
        assert len(chunk.audio) == told.audio_total
    with pytest.raises(UsageError, match="no layer 99"):
        replay(model, film, run, layer=99)


def test_overlay_keeps_size_rate_and_sound(
    model: Model, found: Profile, film: Path, tmp_path: Path
) -> None:
    target = tmp_path / "seen.mp4"
    overlay(model, film, found.runs[0], target)
    before, after = probe(film), probe(target)
    assert before.video is not None
    assert after.video is not None
    assert (after.video.width, after.video.height) == (before.video.width, before.video.height)
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
