"""Free memory, bytes as text, and every kind of out-of-memory error."""

from __future__ import annotations

import pytest
import torch

from omnidrop.errors import MemoryShortError
from omnidrop.models import memory
from omnidrop.models.memory import (
    gigabytes,
    has_own_memory,
    memory_free,
    out_of_memory,
)


def test_a_cpu_has_the_hosts_memory(monkeypatch):
    monkeypatch.setattr(memory, "host_memory_free", lambda _: 7)
    assert not has_own_memory(torch.device("cpu"))
    assert memory_free(torch.device("cpu")) == 7


def test_what_pytorch_reserved_on_a_gpu_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 20)
    assert has_own_memory(torch.device("cuda"))
    assert memory_free(torch.device("cuda")) == 130


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
