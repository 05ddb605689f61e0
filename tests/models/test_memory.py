"""Free memory as the machine and its container count it, and every way of running out of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omnidrop.errors import MemoryShortError
from omnidrop.models.memory import (
    device_memory_free,
    gigabytes,
    host_memory_free,
    out_of_memory,
)


def machine(root: Path, available: str | None, limit: str | None, used: int = 0) -> Path:
    if available is not None:
        (root / "proc").mkdir(exist_ok=True)
        (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {available} kB\n")
    if limit is not None:
        group = root / "sys/fs/cgroup"
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(limit + "\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text("anon 1\ninactive_file 50\n")
    return root


def test_the_smaller_of_machine_and_container(tmp_path):
    assert host_memory_free(machine(tmp_path, "10", None)) == 10_240
    assert host_memory_free(machine(tmp_path, "10", "max")) == 10_240
    assert host_memory_free(machine(tmp_path, "10", "1000", used=800)) == 250
    assert host_memory_free(machine(tmp_path, "10", "1000", used=2000)) == 0
    assert host_memory_free(machine(tmp_path, "many", "100000", used=0)) == 100_050


def test_unknown_memory(tmp_path):
    assert host_memory_free(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\n")
    assert host_memory_free(tmp_path) is None


def test_this_machine_has_memory():
    free = host_memory_free()
    assert free is None or free > 0
    assert device_memory_free(torch.device("cpu")) is None


def test_bytes_for_people():
    assert gigabytes(11_300_000_000) == "11.3 GB"
    assert gigabytes(1_600_000) == "1.6 MB"


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (MemoryError(), "machine"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "GPU"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "machine"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "GPU"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "GPU"),
    ],
    ids=repr,
)
def test_running_out_has_one_error(error, where):
    said = pytest.raises(MemoryShortError, match=f"The {where} ran out of memory. Lower it")
    with said as caught, out_of_memory("Lower it."):
        raise error
    assert caught.value.exit_code == 5
    assert caught.value.__cause__ is error


def test_a_real_allocation_that_is_too_large():
    with pytest.raises(MemoryShortError), out_of_memory("Lower it."):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory(""):
        raise RuntimeError("shapes do not match")
    with pytest.raises(KeyError), out_of_memory(""):
        raise KeyError("x")
    with out_of_memory(""):
        pass
