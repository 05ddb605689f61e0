"""Free memory of machine and container, and every kind of out-of-memory error."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from omnidrop.errors import MemoryShortError
from omnidrop.models.memory import (
    device_memory_free,
    gigabytes,
    host_memory_free,
    out_of_memory,
)


def group(folder: Path, limit: str, used: int = 0) -> Path:
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text("anon 1\ninactive_file 50\n")
    return folder


def test_the_smaller_of_machine_and_container(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_240))
    assert host_memory_free(tmp_path / "none") == 10_240
    assert host_memory_free(group(tmp_path, "max")) == 10_240
    assert host_memory_free(group(tmp_path, "1000", used=800)) == 250
    assert host_memory_free(group(tmp_path, "1000", used=2000)) == 0
    assert host_memory_free(group(tmp_path, "100000")) == 10_240


def test_this_machine_has_memory():
    assert 0 < host_memory_free() <= psutil.virtual_memory().total
    assert device_memory_free(torch.device("cpu")) is None


def test_bytes_as_text():
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
def test_running_out_of_memory_has_one_error(error, where):
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
