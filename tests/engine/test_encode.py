"""Encoding of clips: streaming equals encoding the whole, errors are raised, threads end."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
import torch

from omnidrop.clip.clip import Clip
from omnidrop.clip.log_mel import log_mel
from omnidrop.clip.patches import patches
from omnidrop.engine import encode
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.engine.timing import Meter
from omnidrop.errors import MediaError, MemoryShortError
from omnidrop.pruning.method import Method
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole

QUESTION = "What instrument plays first?"
SHORT = GenerateOptions(max_new_tokens=6)


@pytest.fixture(scope="session")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.mp4(tmp_path_factory.mktemp("clips") / "a.mp4", seconds=5.0)


#: Threads of servers that other tests keep.
SERVING = ("omnidrop-http", "omnidrop-desk")


def frame_threads() -> list[threading.Thread]:
    found = [t for t in threading.enumerate() if t.name.startswith("omnidrop-")]
    return [t for t in found if not t.name.startswith(SERVING)]


def test_streamed_equals_whole(model: Model, clip_path: Path) -> None:
    with model.open(clip_path) as session:
        encoded = session.encode()
        assert session.clip is not None
        data = read_whole(session.clip)
    assert data.audio is not None
    rows, grid = patches(data.frames, model.adapter.video_spec)
    planes, _ = model.adapter.encode_video(rows, grid)
    (audio,), attention = model.adapter.encode_audio(
        log_mel(data.audio, model.adapter.audio_spec), attention=True
    )
    assert encoded.media.grid == grid
    assert encoded.media.audio_tokens == len(audio)
    assert encoded.planes[0] is encoded.video
    torch.testing.assert_close(encoded.planes, planes)
    torch.testing.assert_close(encoded.audio, audio)
    torch.testing.assert_close(encoded.audio_attention, attention)
    assert not frame_threads()


def test_a_clip_and_its_features_give_the_same_answer(model: Model, clip_path: Path) -> None:
    with model.open(clip_path) as session:
        from_file = session.ask(QUESTION, method=Method(), options=SHORT)
        assert session.clip is not None
        data = read_whole(session.clip)
    assert data.audio is not None
    rows, grid = patches(data.frames, model.adapter.video_spec)
    ready = Features(
        patches=rows,
        grid=grid,
        second_per_grid=model.adapter.video_spec.temporal_patch_size / data.fps,
        mel=log_mel(data.audio, model.adapter.audio_spec),
    )
    with model.features(ready) as session:
        from_features = session.ask(QUESTION, method=Method(), options=SHORT)
    assert from_file.token_ids == from_features.token_ids
    assert from_file.trace.clip["grid"] == from_features.trace.clip["grid"]
    assert from_features.trace.clip["path"] is None


@pytest.fixture(params=[True, False], ids=["parallel", "in turns"])
def parallel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether frames are decoded in parallel to the encoders."""
    monkeypatch.setattr(encode, "READERS", -1000 if request.param else 1000)
    return request.param


def test_decoding_and_encoders_take_turns_if_both_need_the_cpu(
    model: Model, clip_path: Path, parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnidrop.clip.frames.parallel._MIN_PIXELS", 0.0)
    monkeypatch.setattr("omnidrop.engine.frame_stream.ROUND", 1)
    monkeypatch.setattr("omnidrop.engine.frame_stream.BATCH", 1)
    open_gates = []
    tower = type(model.adapter).encode_video
    with model.open(clip_path, fps=6) as session:
        assert session.clip is not None
        gate = session.clip.gate

        def watched(*given: object, **rest: object) -> object:
            open_gates.append(gate._open.is_set())
            return tower(*given, **rest)

        monkeypatch.setattr(type(model.adapter), "encode_video", watched)
        encoded = session.encode()
        data = read_whole(session.clip)
        assert gate._open.is_set()
    assert open_gates == [parallel] * len(open_gates)
    assert len(open_gates) == math.ceil(5.0 / model.adapter.template.chunk_seconds)
    rows, grid = patches(data.frames, model.adapter.video_spec)
    assert encoded.media.grid == grid
    torch.testing.assert_close(encoded.video, tower(model.adapter, rows, grid).planes[0])
    assert not frame_threads()


def test_stages_and_progress_are_reported(model: Model, clip_path: Path, parallel: bool) -> None:
    told: list[tuple[str, float, float | None]] = []
    with model.open(clip_path) as session:
        answer = session.ask(QUESTION, options=SHORT, progress=lambda *step: told.append(step))
    names = [stage.name for stage in answer.trace.stages]
    for name in ("open", "sound", "audio tower", "frames", "patches", "vision tower", "prefill"):
        assert name in names
    by_name = {stage.name: stage for stage in answer.trace.stages}
    assert by_name["selection"].within == "prefill"
    assert by_name["selection"].seconds <= by_name["prefill"].seconds
    assert by_name["frames"].overlapped == by_name["patches"].overlapped == parallel
    assert ("waiting for frames" in names) == parallel
    assert by_name["sound"].overlapped
    assert by_name["sound"].seconds >= by_name["log-mel"].seconds > 0
    alone = [s for s in answer.trace.stages if not s.overlapped and s.within is None]
    assert sum(s.seconds for s in alone if s.name != "answer") <= answer.trace.ttft + 0.05
    frames = [step for step in told if step[0] == "frames"]
    assert frames[-1][1] == frames[-1][2] == 5 * model.adapter.video_spec.fps
    assert [step[0] for step in told][-1] == "prefill"


def test_an_error_while_decoding_reaches_the_caller(
    model: Model, clip_path: Path, parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Clip) -> None:
        raise MediaError("The frames are gone.", path=self.path)

    monkeypatch.setattr(Clip, "frame_chunks", broken)
    with model.open(clip_path) as session, pytest.raises(MediaError, match="frames are gone"):
        session.ask(QUESTION)
    assert not frame_threads()


def test_an_error_in_an_encoder_ends_the_decoding_thread(
    model: Model, clip_path: Path, parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(type(model.adapter), "encode_video", full)
    with model.open(clip_path) as session, pytest.raises(MemoryShortError, match="max-pixels"):
        session.ask(QUESTION)
    assert not frame_threads()


def test_a_span_without_video_and_audio_is_refused(
    model: Model, clip_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clip, "log_mel", lambda self, stop: None)
    monkeypatch.setattr(Clip, "frame_chunks", lambda self: (chunk for chunk in ()))
    with (
        model.open(clip_path) as session,
        pytest.raises(MediaError, match="neither video nor audio"),
    ):
        session.ask(QUESTION)


def test_video_only_and_audio_only_clips(model: Model, clip_path: Path, tmp_path: Path) -> None:
    with model.open(media.wav(tmp_path / "a.wav", seconds=3.0)) as session:
        heard = session.ask(QUESTION, options=SHORT).trace
    with model.open(clip_path, audio=False, start=1.0, end=4.0) as session:
        seen = session.ask(QUESTION, options=SHORT).trace
    assert heard.video_tokens == 0
    assert heard.audio_tokens == model.adapter.template.audio_tokens(300)
    assert seen.audio_tokens == 0
    assert seen.video_tokens > 0
    assert (seen.chunks[0].start, seen.chunks[-1].end) == (1.0, 4.0)


def test_meter_nests_stages_adds_seconds_and_accepts_earlier_stages() -> None:
    meter = Meter(torch.device("cpu"))
    meter.begin_earlier("open", 2.0)
    for _ in range(2):
        with meter.stage("outer"), meter.stage("inner"):
            pass
    stages = {stage.name: stage for stage in meter.stages()}
    assert stages["inner"].within == "outer"
    assert stages["outer"].within is None
    assert stages["outer"].seconds >= stages["inner"].seconds
    assert meter.since_start() >= 2.0
