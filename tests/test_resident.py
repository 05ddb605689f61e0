"""Resident bytes of mapped files, by two files of the kernel, and letting go of them."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnidrop import resident

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

PAGES = 4000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights of a model.safetensors"
    path.write_bytes(b"x" * (PAGES * mmap.PAGESIZE))
    return path


@pytest.fixture
def mapped(file: Path) -> Iterator[mmap.mmap]:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, mmap.MAP_PRIVATE) as pages:
        yield pages


def touch(pages: mmap.mmap, share: float) -> None:
    assert all(pages[n * mmap.PAGESIZE] == ord("x") for n in range(round(PAGES * share)))


@pytest.fixture(params=["pagemap", "smaps"])
def kernel_file(request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Which file of the kernel tells."""
    if request.param == "smaps":
        (tmp_path / "smaps").symlink_to("/proc/self/smaps")
        monkeypatch.setattr(resident, "PROC", tmp_path)
    return request.param


@pytest.mark.usefixtures("kernel_file")
def test_pages_count_once_they_are_used(file: Path, mapped: mmap.mmap) -> None:
    assert resident.resident_of([file]) == 0
    touch(mapped, 0.5)
    # The kernel maps pages around one that is used, too: up to 2 MiB of them.
    assert 0 <= resident.resident_of([file]) - PAGES / 2 * mmap.PAGESIZE <= 2 << 20
    touch(mapped, 1)
    assert resident.resident_of([file]) == PAGES * mmap.PAGESIZE


@pytest.mark.usefixtures("kernel_file")
def test_of_each_mapping_and_through_a_link(file: Path, mapped: mmap.mmap, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    touch(mapped, 1)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as again:
        touch(again, 1)
        assert resident.resident_of([link, file]) == 2 * PAGES * mmap.PAGESIZE


@pytest.mark.usefixtures("kernel_file", "mapped")
def test_other_files_do_not_count(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "model.safetensors"  # the end of the mapped file's name
    other.write_bytes(b"x")
    assert resident.resident_of([other, tmp_path / "missing"]) == 0


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resident, "PROC", tmp_path)
    assert resident.resident_of([tmp_path]) == 0
    resident.let_go([tmp_path])


def test_letting_go_keeps_what_was_written_to(file: Path, mapped: mmap.mmap) -> None:
    touch(mapped, 1)
    resident.let_go([file])
    assert resident.resident_of([file]) == 0
    touch(mapped, 1)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mine:
        mine[0] = ord("y")
        resident.let_go([file])
        assert mine[0] == ord("y")
        assert resident.resident_of([file]) >= mmap.PAGESIZE
    assert mapped[0] == ord("x")
