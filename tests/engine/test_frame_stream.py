"""Still video: repeated grids are encoded once, with identical results."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
import torch

from omnidrop.engine import frame_stream as reading
from omnidrop.engine.encode import Encoded, encode_clip
from omnidrop.engine.model import Model
from omnidrop.engine.timing import Meter
from omnidrop.errors import UsageError
from omnidrop.options import GenerateOptions
from omnidrop.testing import media

QUESTION = "What instrument plays first?"
SHORT = GenerateOptions(max_new_tokens=8)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Still images of 3, 4 and 5 s, then a second of motion; variable frame rate."""
    times = [0.0, 3.0, 7.0, *(12.0 + step / 10 for step in range(10))]
    path = tmp_path_factory.mktemp("slides") / "a.mkv"
    return media.variable_rate(path, times=times, sounds=[{"codec": "libopus", "rate": 48_000, "seconds": 13}])  # fmt: skip  # noqa: E501


def test_repeated_grids_are_found_by_their_pixels() -> None:
    a, b, c = torch.randint(0, 256, (3, 2, 3, 28, 28), dtype=torch.uint8)
    seen = reading.RepeatFilter(2)
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
    # A last frame without a partner is repeated.
    still = torch.cat([a[:1], a[:1]])
    assert seen.sort(torch.cat([b, a[:1]]))[1] == [1, 4]
    assert seen.sort(still)[1] == [4]


def test_chunks_are_joined_by_size_alone() -> None:
    def chunk(number: int) -> reading.Grids:
        if number == 1:  # nothing new in it
            return reading.Grids(None, (0, 2, 3), [0], 2)
        return reading.Grids(torch.full((12, 4), float(number)), (2, 2, 3), [number, 9], 4)

    chunks = [chunk(number) for number in range(5)]
    assert list(reading.joined(iter(chunks), 0)) == chunks
    taken, last = reading.joined(iter(chunks), 30)
    assert taken.rows is not None
    assert taken.rows[:, 0].tolist() == [0.0] * 12 + [2.0] * 12 + [3.0] * 12
    assert taken.shape == (6, 2, 3)
    assert taken.places == [0, 9, 0, 2, 9, 3, 9]
    assert taken.frames == 14
    assert last is chunks[4]
    nothing = reading.Grids.together([chunk(1), chunk(1)])
    assert (nothing.rows, nothing.shape) == (None, (0, 2, 3))


def test_near_repeats_count_if_requested() -> None:
    a = torch.randint(20, 236, (2, 3, 56, 56), dtype=torch.uint8)
    noise = torch.randint(0, 4, a.shape, dtype=torch.uint8)
    dot = a.clone()
    dot[1, 0, 33, 7] += 5  # one pixel, in a row that is not among those compared first
    places = {
        still: reading.RepeatFilter(2, still).sort(torch.cat([a, a + noise, dot]))[1]
        for still in (0, 3, 4, 5)
    }
    assert places == {0: [0, 1, 2], 3: [0, 0, 1], 4: [0, 0, 1], 5: [0, 0, 0]}
    # Each grid is compared with the first of its kind, so that slow changes are not missed.
    slow = torch.cat([a + step for step in range(0, 10, 2)])
    fresh, found = reading.RepeatFilter(2, 3).sort(slow)
    assert found == [0, 0, 1, 1, 2]
    assert torch.equal(fresh, torch.cat([a, a + 4, a + 8]))
    # Near repeats are recognised from then on, and exact repeats even after a long time.
    seen = reading.RepeatFilter(2, 3)
    others = torch.randint(0, 256, (2 * reading.COMPARED, 3, 56, 56), dtype=torch.uint8)
    assert seen.sort(torch.cat([a, a + noise, others, a + noise, a]))[1][-2:] == [0, 0]
    assert seen.sort(a + 1)[1] == [reading.COMPARED + 1]


def test_still_video_of_a_real_codec_is_encoded_once(model: Model, tmp_path: Path) -> None:
    held = media.picture(0, 160, 120)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=10, options={"g": "20", "crf": "30"})
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        for _ in range(100):
            out.mux(video.encode(av.VideoFrame.from_ndarray(held, format="rgb24")))
        out.mux(video.encode(None))
    exact, passed = encode(model, path)
    nearly, fewer = encode(model, path, still=24)
    assert fewer < passed
    assert nearly.media == exact.media
    alike = torch.nn.functional.cosine_similarity(exact.video, nearly.video)
    assert alike.mean() > 0.99


@pytest.mark.parametrize("still", [-1, 256])
def test_invalid_levels_are_refused(model: Model, slides: Path, still: int) -> None:
    with pytest.raises(UsageError, match="grey levels"):
        model.open(slides, still=still)


def encode(model: Model, path: Path, **settings: object) -> tuple[Encoded, int]:
    """Encode a clip; return also the number of grids that the vision encoder computed."""
    passed = []
    tower = type(model.adapter).encode_video

    def counted(self, rows, grid, **rest):
        passed.append(grid[0])
        return tower(self, rows, grid, **rest)

    with pytest.MonkeyPatch.context() as patch, model.open(path, **settings) as session:
        patch.setattr(type(model.adapter), "encode_video", counted)
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


def test_the_trace_counts_repeated_grids(model: Model, slides: Path) -> None:
    with model.open(slides) as session:
        clip = session.ask(QUESTION, options=SHORT).trace.clip
    assert 0 < clip["repeated_grids"] < clip["grid"][0]
