"""Checkpoints of published size, by their headers: sizes, weights, checks, all within seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import omnidrop
from omnidrop.errors import MemoryShortError, ModelError
from omnidrop.models import memory
from omnidrop.models.family import families
from omnidrop.models.loading import check, load_adapter, resolve
from omnidrop.models.locations import shards
from omnidrop.models.memory import weights_of
from omnidrop.models.unloaded import describe
from omnidrop.options import LoadOptions
from omnidrop.profiling.estimate import estimate
from omnidrop.testing import media
from tests.models import full_size

pytestmark = pytest.mark.slow

#: Seconds of processor time for the checks before loading.
SECONDS = 8.0

#: Alias, and who writes the checkpoint. Parameters are those of the published files without what
#: speaks: 4.7 and 8.9 B for Qwen2.5-Omni, 30.5 B and the encoders for Qwen3-Omni.
PUBLISHED: dict[str, tuple[Callable[[Path], Path], float]] = {
    "3b": (partial(full_size.qwen2_5_omni, size="3b"), 4.703e9),
    "7b": (partial(full_size.qwen2_5_omni, size="7b"), 8.932e9),
    "qwen3-30b": (full_size.qwen3_omni, 31.719e9),
    "salmonn2-3b": (partial(full_size.video_salmonn2, size="3b"), 4.678e9),
    "salmonn2-7b": (partial(full_size.video_salmonn2, size="7b"), 9.220e9),
}


some = pytest.mark.parametrize("published", ["3b", "qwen3-30b"], indirect=True)


@pytest.fixture(scope="module", params=PUBLISHED)
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, PUBLISHED[request.param][0](folder)


def options(folder: Path, **settings: str) -> LoadOptions:
    return LoadOptions(model=str(folder), device="cpu", offline=True, **settings)


def test_what_is_stated_of_a_model_is_what_its_files_say(published: tuple[str, Path]) -> None:
    alias, folder = published
    began = time.process_time()
    found = describe(options(folder, dtype="bfloat16"))
    assert time.process_time() - began < SECONDS
    names = {known: name for family in families() for known, name in family.aliases.items()}
    stated = {n: s for family in families() for n, s in family.published.items()}[names[alias]]
    assert found.shapes == stated
    assert found.parameters == pytest.approx(PUBLISHED[alias][1], rel=1e-3)
    assert stated.parameters == pytest.approx(found.parameters, rel=1e-3)
    assert found.weights == 2 * found.parameters
    # Without its files it is described nearly alike.
    assert stated.weight_bytes(2) == pytest.approx(found.weights, rel=1e-3)
    small = describe(options(folder, dtype="bfloat16", quantize="4bit"), card=True)
    assert stated.weight_bytes(2, 0.53) == pytest.approx(small.weights, rel=0.005)


@some
def test_what_speaks_is_neither_counted_nor_needed(published: tuple[str, Path]) -> None:
    _, folder = published
    location = resolve(options(folder))
    unused = location.family.unused_weights
    used = shards(folder, unused)
    left = set(folder.glob("*.safetensors")) - set(used)
    (speaks,) = left
    before = weights_of(location, torch.device("cpu"), torch.bfloat16, None)
    away = speaks.rename(folder / "away")
    try:
        assert (
            weights_of(resolve(options(folder)), torch.device("cpu"), torch.bfloat16, None)
            == before
        )
        check(location)
    finally:
        away.rename(speaks)


@some
def test_a_model_that_does_not_fit_is_refused_at_once(
    published: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = published
    monkeypatch.setattr(memory, "host_memory_free", lambda _: 2_000_000_000)
    with pytest.raises(MemoryShortError, match=r"weights \d+\.\d GB, free 2\.0 GB on cpu"):
        load_adapter(options(folder, dtype="bfloat16"))


@some
def test_a_wrong_size_is_named(published: tuple[str, Path]) -> None:
    _, folder = published
    text = (folder / "config.json").read_text()
    try:
        (folder / "config.json").write_text(
            text.replace('"intermediate_size": 5120', '"intermediate_size": 1').replace(
                '"encoder_ffn_dim": 5120', '"encoder_ffn_dim": 5121'
            )
        )
        began = time.process_time()
        with pytest.raises(ModelError, match=r"fc[12].*5120.*5121"):
            check(resolve(options(folder)))
        assert time.process_time() - began < SECONDS
    finally:
        (folder / "config.json").write_text(text)


@some
def test_an_estimate_needs_no_weights(published: tuple[str, Path], tmp_path: Path) -> None:
    _, folder = published
    clip = media.mp4(tmp_path / "a.mp4", size=(128, 96), seconds=4)
    methods = [omnidrop.OmniDrop(budget=0.3)]
    found = estimate(clip, "What?", methods, model=options(folder, dtype="bfloat16"), tflops=1.0)
    assert found.runs[0].peak > found.model["weights"]
    assert found.runs[0].peak <= found.control.peak
    assert found.runs[0].kv_cache < found.control.kv_cache
