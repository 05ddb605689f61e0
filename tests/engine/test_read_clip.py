"""A clip that another process read: the same bits, notices and errors as reading it here."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnidrop.clip.clip import Clip, open_clip
from omnidrop.clip.options import ClipOptions
from omnidrop.clip.read_clip import ReadClip, decoded_bytes, sendable
from omnidrop.clip.specs import MediaSpec, VideoSpec
from omnidrop.engine.encode import Encoded
from omnidrop.engine.model import Model
from omnidrop.engine.session import Session
from omnidrop.engine.trace_builder import _describe
from omnidrop.errors import MediaError
from omnidrop.models.locations import find
from omnidrop.models.unloaded import media_spec_of
from omnidrop.testing import media

KINDS: dict[str, tuple[Callable[[Path], Path], ClipOptions]] = {
    "sound": (lambda folder: media.mp4(folder / "a.mp4", seconds=3.0), ClipOptions()),
    "silent": (lambda folder: media.silent_mp4(folder / "a.mp4", seconds=2.0), ClipOptions()),
    "sound only": (lambda folder: media.wav(folder / "a.wav", seconds=2.2), ClipOptions()),
    "span": (
        lambda folder: media.mp4(folder / "a.mp4", seconds=3.0),
        ClipOptions(start=0.7, end=2.3, fps=4),
    ),
    "variable rate": (lambda folder: media.variable_rate(folder / "a.mp4"), ClipOptions(fps=5)),
    "damaged": (
        lambda folder: media.truncated(media.faststart_mp4(folder / "a.mp4", seconds=8)),
        ClipOptions(),
    ),
    "short sound": (
        lambda folder: media.mp4(
            folder / "a.mp4", seconds=2.0, sounds=[{"codec": "aac", "seconds": 0.01}]
        ),
        ClipOptions(),
    ),
    "no picture wanted": (
        lambda folder: media.mp4(folder / "a.mp4", seconds=3.0),
        ClipOptions(video=False),
    ),
}


#: Bytes by which sound may be longer than its header says.
FEW = 4 * 2048


def sent(read: ReadClip | None) -> ReadClip:
    assert read is not None
    found: ReadClip = pickle.loads(pickle.dumps(read, protocol=5))
    return found


def told(session: Session, encoded: Encoded) -> dict[str, Any]:
    """What a report says of a clip, and what the engine asks it."""
    clip = session.clip
    assert clip is not None
    return {
        **_describe(clip, encoded),
        "notices": clip.notices,
        "silent": clip.silent,
        "has": (clip.has_video, clip.has_audio),
        "media": encoded.media,
        "used": encoded.used,
    }


def tensors(encoded: Encoded) -> list[torch.Tensor]:
    found = (*encoded.planes, encoded.audio, encoded.audio_attention)
    return [tensor for tensor in found if tensor is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoders_give_the_same_bits(model: Model, tmp_path: Path, kind: str) -> None:
    make, options = KINDS[kind]
    path = make(tmp_path)
    with model.open(path, options) as session:
        here = session.encode()
        expected = told(session, here)
    with open_clip(path, options, model.adapter.media_spec) as clip:
        read = ReadClip.of(clip)
        assert read is not None
        assert read.bytes <= decoded_bytes(clip) + FEW
    path.unlink()  # nothing more is read of it
    for opened in (sent(read), model.prepare(sent(read), options), model.prepare(sent(read))):
        with model.open(opened) as session:
            there = session.encode()
            assert told(session, there) == expected
        assert len(tensors(here)) == len(tensors(there))
        assert all(map(torch.equal, tensors(here), tensors(there)))


def test_a_frame_that_stays_is_held_once(tmp_path: Path) -> None:
    path = media.variable_rate(tmp_path / "a.mp4")
    with open_clip(path, ClipOptions(fps=10)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
    with open_clip(path, ClipOptions(fps=10)) as clip:
        read = ReadClip.of(clip)
    assert read is not None
    assert read.frames is not None
    assert len(read.frames) < len(read.shown) == len(frames)
    with sent(read).opened(MediaSpec()) as again:
        assert torch.cat([chunk.frames for chunk in again.frame_chunks()]).equal(frames)


def test_other_options_and_other_models_read_the_file_again(model: Model, tmp_path: Path) -> None:
    path = media.mp4(tmp_path / "a.mp4", seconds=2.0)
    spec = model.adapter.media_spec
    with open_clip(path, spec=spec) as clip:
        read = sent(ReadClip.of(clip))
    other = ClipOptions(fps=4)
    for opened in (read, model.prepare(read, other)):
        with model.open(opened, other) as session, model.open(path, other) as direct:
            assert told(session, session.encode()) == told(direct, direct.encode())
    small = MediaSpec(VideoSpec(max_pixels=16 * VideoSpec().factor ** 2))
    with read.opened(small) as clip, open_clip(path, spec=small) as direct_clip:
        assert not clip.is_read_ahead
        assert clip.identity == direct_clip.identity
        assert clip.plan is not None
        assert next(clip.frame_chunks()).frames.shape[-2:] == clip.plan.size


def test_what_cannot_be_decoded_is_raised_where_the_clip_is_used(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.mp4(tmp_path / "a.mp4", seconds=1.0)
    monkeypatch.setattr("omnidrop.clip.clip.shown_frames", lambda *_, **__: (_ for _ in ()))
    with open_clip(path, spec=model.adapter.media_spec) as clip:
        read = sent(ReadClip.of(clip))
    for opened in (path, read):
        with (
            model.open(opened) as session,
            pytest.raises(MediaError, match=r"a\.mp4: No frame of the video can be decoded\. The"),
        ):
            session.encode()


def test_a_clip_above_the_limit_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.mp4(tmp_path / "a.mp4", seconds=1.0)
    with open_clip(path) as clip:
        size = decoded_bytes(clip)
        assert clip.plan is not None
        area = clip.plan.size[0] * clip.plan.size[1]
        assert size == 3 * area * len(clip.plan.times) + 4 * 16_000 * clip.duration
        read = ReadClip.of(clip, most=size + FEW)
    assert read is not None
    with open_clip(path) as clip:
        monkeypatch.setattr(Clip, "frame_chunks", lambda _: pytest.fail("it was read"))
        assert ReadClip.of(clip, most=size - 1) is None
    monkeypatch.undo()
    monkeypatch.setattr("omnidrop.clip.read_clip.decoded_bytes", lambda _: 0)  # a header that lies
    with open_clip(path) as clip:
        assert ReadClip.of(clip, most=read.bytes - 1) is None


def test_an_error_says_the_same_after_it_was_sent() -> None:
    error = MediaError("It is damaged.", path=Path("a.mp4"), hint="Convert it.")
    again = pickle.loads(pickle.dumps(sendable(error)))
    assert (str(again), again.what, again.hint) == (str(error), error.what, error.hint)

    class Local(Exception):
        """Not to be found by the receiver."""

    try:
        raise Local("lost")
    except Local as problem:
        again = pickle.loads(pickle.dumps(sendable(problem)))
    assert str(again) == "Local: lost"
    try:
        raise KeyError("lost")
    except KeyError as problem:
        again = pickle.loads(pickle.dumps(sendable(problem)))
    assert type(again) is KeyError
    assert "test_read_clip.py" in again.__notes__[0], "where it happened"


def test_what_a_model_asks_of_clips_is_known_without_its_weights(
    model: Model, folder: Path
) -> None:
    spec = pickle.loads(pickle.dumps(media_spec_of(find(str(folder), offline=True))))
    known = model.adapter.media_spec
    assert (spec.video, spec.audio) == (known.video, known.audio)
    assert spec.chunk_seconds == known.chunk_seconds
    for samples in (0, 1000, 16_000, 100_001):
        assert spec.tokens_of_samples(samples) == known.tokens_of_samples(samples)
