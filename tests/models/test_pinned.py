"""Weights read by `pinned` equal those that transformers reads, in every layout and precision."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from omnidrop.errors import ModelError
from omnidrop.models import pinned
from omnidrop.models.loading import LoadOptions, load_adapter
from omnidrop.models.qwen2_5_omni import FAMILY
from omnidrop.models.qwen2_5_omni.tiny import hub_layout, tiny_thinker
from tests.some import every

CPU = torch.device("cpu")


@pytest.fixture
def read_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Read weights for the CPU as for a GPU; returns the list of names read."""
    names: list[str] = []
    read = pinned.PinnedReader.read

    def noting(self, path, weight, offset):
        names.append(weight.name)
        return read(self, path, weight, offset)

    monkeypatch.setattr(pinned, "reads_pinned", lambda device: True)
    monkeypatch.setattr(pinned.PinnedReader, "read", noting)
    return names


def state(folder: Path, **settings: str) -> tuple[dict[str, torch.Tensor], dict[str, object], set]:
    settings.setdefault("dtype", "float32")
    adapter = load_adapter(LoadOptions(model=str(folder), device="cpu", offline=True, **settings))
    thinker = adapter._thinker  # type: ignore[attr-defined]
    return thinker.state_dict(), thinker.generation_config.to_dict(), set(adapter.stop_ids)


@pytest.fixture(scope="module")
def by_transformers(tmp_path_factory: pytest.TempPathFactory):
    """Writes a checkpoint and loads it with transformers' own reading, once for each way."""

    @cache
    def make(layout, stored: str, dtype: str):
        folder = layout(tmp_path_factory.mktemp("model"), dtype=getattr(torch, stored))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pinned, "reads_pinned", lambda device: False)
            patch.setattr(pinned.PinnedReader, "read", lambda *_: pytest.fail("read here"))
            return folder, state(folder, dtype=dtype)

    return make


@pytest.mark.parametrize("block", every(2, [1000, pinned.BLOCK]))
@pytest.mark.parametrize(
    ("stored", "dtype"),
    [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float16")],
)
@pytest.mark.parametrize("layout", [pytest.param(tiny_thinker, marks=pytest.mark.slow), hub_layout])
def test_the_same_model(
    layout,
    stored: str,
    dtype: str,
    block: int,
    by_transformers,
    monkeypatch: pytest.MonkeyPatch,
    read_here: list[str],
) -> None:
    folder, (expected, expected_generation, expected_stops) = by_transformers(layout, stored, dtype)
    monkeypatch.setattr(pinned.PinnedReader.__init__, "__kwdefaults__", {"block": block})
    given, generation, stops = state(folder, dtype=dtype)
    assert len(read_here) == len(given)
    assert not any(name.startswith(FAMILY.unused_weights) for name in read_here)
    assert list(given) == list(expected)
    for key, value in expected.items():
        assert given[key].dtype == value.dtype
        assert torch.equal(given[key], value), key
    assert generation == expected_generation
    assert stops == expected_stops


@pytest.mark.parametrize("kind", every(2, ["4bit", "8bit"]))
def test_the_same_quantised_model(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_here: list[str]
) -> None:
    hub_folder = hub_layout(tmp_path / "model", dtype=torch.bfloat16)
    given = state(hub_folder, quantize=kind, dtype="bfloat16")[0]
    assert read_here
    monkeypatch.setattr(pinned, "reads_pinned", lambda device: False)
    expected = state(hub_folder, quantize=kind, dtype="bfloat16")[0]
    assert list(given) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(given[key], value), key


@pytest.mark.parametrize("dtype", list(pinned.TYPES.values()))
def test_every_type_and_shape(tmp_path: Path, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "matrix": torch.randint(0, 2, (33, 17), generator=generator).to(dtype),
        "number": torch.ones((), dtype=dtype),
        "nothing": torch.empty(0, 5, dtype=dtype),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    with pinned.PinnedReader(CPU, block=64) as reader:
        unread = reader.lazy(tmp_path, torch.float64)
        assert unread is not None
        for name, value in load_file(tmp_path / "model.safetensors").items():
            found = unread[name][...]
            assert found.dtype == dtype
            assert torch.equal(found, value)


def test_types_unknown_or_too_wide_are_left_to_transformers(
    tmp_path: Path, hub_folder: Path, read_here: list[str]
) -> None:
    save_file({"a": torch.ones(4).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pinned.PinnedReader(CPU) as reader:
        assert reader.lazy(tmp_path, torch.float32) is None
    given = state(hub_folder, dtype="bfloat16")[0]  # stored in float32
    assert given
    assert not read_here


@pytest.mark.parametrize("settings", [{}, {"quantize": "4bit"}])
def test_a_file_that_ends_while_it_is_read_is_an_error(
    settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_here: list[str],
) -> None:
    folder = hub_layout(tmp_path / "model")
    victim = sorted(folder.glob("*.safetensors"))[1]
    lazy = pinned.PinnedReader.lazy

    def cut(self, where, dtype, unused):
        found = lazy(self, where, dtype, unused)
        os.truncate(victim, victim.stat().st_size // 2)
        return found

    monkeypatch.setattr(pinned.PinnedReader, "lazy", cut)
    with pytest.raises(ModelError):
        state(folder, **settings)
    assert read_here


def test_files_and_threads_are_closed(hub_folder: Path) -> None:
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    with pinned.PinnedReader(CPU) as reader:
        unread = reader.lazy(hub_folder, torch.float32)
        assert unread is not None
        for item in unread.values():
            assert list(item[...].shape) == item.get_shape()
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before | {str(max(map(int, before)) + 1)}
    with pytest.raises(RuntimeError):
        reader.read(hub_folder, next(iter(unread.values())).weight, 0)


def test_weights_are_read_here_only_for_a_gpu() -> None:
    assert not pinned.reads_pinned(CPU)
    assert pinned.reads_pinned(torch.device("cuda")) == hasattr(os, "preadv")
