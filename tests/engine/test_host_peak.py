"""Peak memory of an answer: weights by their headers, everything else as the kernel counts it."""

from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from omnidrop import Limits, Model, resident
from omnidrop.engine import memory
from omnidrop.engine.memory import BY_KERNEL, BY_SAMPLES, SELDOM, HostPeak, held_on_host, in_use
from omnidrop.models.memory import Weights
from omnidrop.options import GenerateOptions
from omnidrop.testing import media

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

QUESTION = "What is there?"
SHORT = GenerateOptions(max_new_tokens=8)
MEGABYTE = 10**6


def adapter(folder: Path | None = None, mapped: int = 0) -> Any:
    return SimpleNamespace(
        weights=Weights(mapped_bytes=mapped), folder=folder, device=torch.device("cpu")
    )


@linux
def test_the_peak_is_what_was_held_meanwhile_and_not_before() -> None:
    before = np.ones(20 * MEGABYTE)  # 160 MB
    del before
    with HostPeak(adapter()) as peak:
        empty = peak.bytes()
        block = np.ones(10 * MEGABYTE)
        del block
        found = peak.bytes()
    assert peak.measured == BY_KERNEL
    assert found == resident.mark()
    assert found - empty == pytest.approx(80 * MEGABYTE, rel=0.1)


def test_without_the_kernels_mark_it_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "reset_mark", lambda: False)
    now = {"own": 100}
    monkeypatch.setattr(resident, "held", lambda: resident.Held(now["own"], files=30))
    with HostPeak(adapter()) as peak:
        now["own"] = 700
        time.sleep(20 * SELDOM)
        now["own"] = 200
        assert peak.bytes() == 730
    assert peak.measured == BY_SAMPLES


@linux
def test_mapped_weights_count_whole_and_once(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    size = 40 * MEGABYTE // mmap.PAGESIZE * mmap.PAGESIZE
    path.write_bytes(b"\1" * size)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as held:
        subject = adapter(tmp_path, mapped=size)
        with HostPeak(subject) as peak:
            peak.bytes()  # loads what it needs itself
            untouched = peak.bytes()
            assert sum(held[at] for at in range(0, size // 2, mmap.PAGESIZE))
            assert resident.resident_of([path]) >= size // 2
            half = peak.bytes()
            assert sum(held[at] for at in range(0, size, mmap.PAGESIZE))
            whole = peak.bytes()
        assert peak.measured == BY_SAMPLES
        assert half == pytest.approx(untouched, abs=8 * MEGABYTE)
        assert whole == pytest.approx(untouched, abs=8 * MEGABYTE)
        assert held_on_host(subject) == pytest.approx(whole, abs=8 * MEGABYTE)
        resident.let_go([path])
        assert resident.resident_of([path]) == 0
        assert held[size - 1] == 1  # read again


@linux
def test_pages_that_were_written_to_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\1" * 10 * mmap.PAGESIZE)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as held:
        held[5] = 7
        resident.let_go([path])
        assert held[5] == 7


@linux
def test_a_link_is_the_file_that_it_leads_to(tmp_path: Path) -> None:
    blob, link = tmp_path / "blob", tmp_path / "model.safetensors"
    blob.write_bytes(b"\1" * 10 * mmap.PAGESIZE)
    link.symlink_to(blob)
    with blob.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as held:
        assert held[0] == 1
        assert resident.resident_of([link]) > 0


def test_a_system_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resident, "PROC", tmp_path)
    assert resident.held().own > MEGABYTE
    assert resident.held().files == 0
    assert resident.mark() is None
    assert not (tmp_path / "clear_refs").exists()
    assert resident.resident_of([tmp_path / "a"]) == 0
    resident.let_go([tmp_path / "a"])


def test_the_report_names_weights_and_how_it_was_measured(model: Model, tmp_path: Path) -> None:
    path = media.mp4(tmp_path / "a.mp4", size=(128, 96))
    with model.open(path) as clip:
        first = clip.ask(QUESTION, options=SHORT).trace.memory
        again = clip.ask(QUESTION, limits=Limits(memory=1e12), options=SHORT).trace
    weights = model.adapter.weights
    assert first.weights == weights.total_bytes
    assert first.mapped == weights.mapped_bytes
    assert first.measured in (BY_KERNEL, BY_SAMPLES)
    assert first.host > first.weights
    expected = again.notices[-1].rpartition("expected ")[2]
    assert expected.endswith(("MB.", "GB."))


def test_a_gpu_counts_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = adapter()
    subject.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 5)
    monkeypatch.setattr(memory, "device_peak", lambda _: 9)
    assert in_use(subject) == (5, 9)
