"""Still pictures: grids met before are not encoded again, with identical results."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import media
import pytest
import torch

from omnidrop.engine import reading
from omnidrop.engine.encode import encode_clip
from omnidrop.engine.meter import Meter
from omnidrop.engine.session import Encoded, Model

QUESTION = "What instrument plays first?"


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures held for 3, 4 and 5 s, then a second of motion; a frame rate that varies."""
    times = [0.0, 3.0, 7.0, *(12.0 + step / 10 for step in range(10))]
    path = tmp_path_factory.mktemp("slides") / "a.mkv"
    return media.variable_rate(path, times=times, sounds=[{"codec": "libopus", "rate": 48_000, "seconds": 13}])  # fmt: skip  # noqa: E501


def test_grids_are_known_by_their_pixels() -> None:
    a, b, c = torch.randint(0, 256, (3, 2, 3, 28, 28), dtype=torch.uint8)
    seen = reading.Seen(2)
    fresh, places = seen.sort(torch.cat([a, b, a]))
    assert torch.equal(fresh, torch.cat([a, b]))
    assert places == [0, 1, 0]
    fresh, places = seen.sort(torch.cat([b, c]))
    assert torch.equal(fresh, c)
    assert places == [1, 2]
    fresh, places = seen.sort(b)
    assert (len(fresh), places) == (0, [1])
    fresh, places = seen.sort(c.flip(0))  # the same frames in another order are another grid
    assert places == [3]
    # A last frame without a partner is one that stands still.
    still = torch.cat([a[:1], a[:1]])
    assert seen.sort(torch.cat([b, a[:1]]))[1] == [1, 4]
    assert seen.sort(still)[1] == [4]


def encode(model: Model, path: Path, **settings: object) -> tuple[Encoded, int]:
    """Encode a clip; also the number of grids that went through the tower."""
    passed = []
    tower = type(model.adapter).vision_tower

    def counted(self, rows, grid, **rest):
        passed.append(grid[0])
        return tower(self, rows, grid, **rest)

    with pytest.MonkeyPatch.context() as patch, model.open(path, **settings) as session:
        patch.setattr(type(model.adapter), "vision_tower", counted)
        assert session.clip is not None
        meter = Meter(model.adapter.device)
        encoded = encode_clip(model.adapter, session.clip, meter, video_attention=True)
    return encoded, sum(passed)


@pytest.mark.parametrize("settings", [{}, {"start": 1.0, "fps": 3.0}, {"end": 2.5}])
def test_reuse_changes_nothing(
    model: Model, slides: Path, settings: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    reused, passed = encode(model, slides, **settings)
    grids = reused.media.grid[0]
    assert passed + reused.repeated_grids == grids
    assert reused.repeated_grids > grids / 2 - 1

    numbers = itertools.count()
    never_twice = SimpleNamespace(blake2b=lambda *_, **__: SimpleNamespace(digest=numbers.__next__))
    monkeypatch.setattr(reading, "hashlib", never_twice)
    plain, passed = encode(model, slides, **settings)
    assert (plain.repeated_grids, passed) == (0, grids)
    assert plain.media == reused.media
    assert torch.equal(plain.video, reused.video)
    assert torch.equal(plain.video_attention, reused.video_attention)
    assert torch.equal(plain.audio, reused.audio)


def test_the_trace_tells_how_many(model: Model, slides: Path) -> None:
    with model.open(slides) as session:
        clip = session.ask(QUESTION).trace.clip
    assert 0 < clip["repeated_grids"] < clip["grid"][0]
