"""Reading ahead: the same frames and sound, and no thread that stays."""

from __future__ import annotations

import threading
import time

import torch

from omnidrop.clip import read_ahead
from omnidrop.clip.clip import open_clip
from omnidrop.testing import media


def test_reading_ahead_changes_nothing(tmp_path, monkeypatch) -> None:
    path = media.mp4(tmp_path / "clip.mp4", seconds=3.0)

    def read(ahead: bool) -> tuple[list[torch.Tensor], torch.Tensor | None, list[str]]:
        with open_clip(path) as clip:
            if ahead:
                clip.read_ahead()
                assert clip.is_read_ahead
            found = [chunk.frames for chunk in clip.frame_chunks()]
            mel = clip.log_mel()
            assert not clip.is_read_ahead  # it was used up; a second reading decodes again
            again = [chunk.frames for chunk in clip.frame_chunks()]
            assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
            return found, mel, clip.notices

    frames, mel, notices = read(False)
    for held in (1, 128 << 20):
        monkeypatch.setattr(read_ahead, "HELD", held)
        early = read(True)
        assert all(torch.equal(a, b) for a, b in zip(frames, early[0], strict=True))
        assert torch.equal(mel, early[1])
        assert notices == early[2]
    before = threading.active_count()
    clip = open_clip(path)
    clip.read_ahead()
    clip.close()  # nothing of it was asked for
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
