"""Free memory of the machine and of every control group above the process, both versions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from omnidrop.host_memory import host_memory_free

MACHINE = 10_240


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=MACHINE))


def group(folder: Path, limit: str, used: int = 0, cached: int = 50, high: str = "max") -> Path:
    """Write a group of version 2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.high").write_text(high + "\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    return folder


def old_group(folder: Path, limit: int, used: int = 0, cached: int = 50) -> Path:
    """Write a group of version 1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {cached}\n")
    return folder


def named(tmp_path: Path, *lines: str) -> Path:
    """Write the file that names the groups of the process."""
    own = tmp_path / "own"
    own.write_text("".join(line + "\n" for line in lines))
    return own


def free(tmp_path: Path, *lines: str) -> int:
    return host_memory_free(0, tmp_path / "cgroup", named(tmp_path, *lines))


def test_a_machine_without_groups_gives_its_own(tmp_path: Path) -> None:
    assert host_memory_free(0, tmp_path / "none", tmp_path / "none") == MACHINE


@pytest.mark.parametrize(
    ("limit", "used", "left"),
    [("max", 0, MACHINE), ("1000", 800, 250), ("1000", 2000, 0), ("100000", 0, MACHINE)],
)
def test_a_container_that_sees_its_group_as_the_root(
    tmp_path: Path, limit: str, used: int, left: int
) -> None:
    group(tmp_path / "cgroup", limit, used)
    assert free(tmp_path, "0::/") == left
    assert host_memory_free(0, tmp_path / "cgroup", tmp_path / "none") == left


def test_the_least_of_all_groups_above_counts(tmp_path: Path) -> None:
    group(tmp_path / "cgroup/user.slice", "4000", used=1000, cached=0)
    group(tmp_path / "cgroup/user.slice/job.scope", "max", used=500)
    assert free(tmp_path, "0::/user.slice/job.scope") == 3000
    group(tmp_path / "cgroup/user.slice/job.scope", "2500", used=500, cached=100)
    assert free(tmp_path, "0::/user.slice/job.scope") == 2100


def test_a_group_is_slowed_down_at_its_high_mark(tmp_path: Path) -> None:
    group(tmp_path / "cgroup/a", "5000", used=100, cached=0, high="2000")
    assert free(tmp_path, "0::/a") == 1900


def test_a_path_of_the_host_leaves_the_containers_own_root(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", "3000", used=1000, cached=0)
    assert free(tmp_path, "0::/docker/0123abcd") == 2000


def test_version_1_with_its_parents(tmp_path: Path) -> None:
    memory = tmp_path / "cgroup/memory"
    old_group(memory, 2**63 - 4096)
    old_group(memory / "slurm", 6000, used=2000, cached=500)
    old_group(memory / "slurm/job_7", 2**63 - 4096, used=1000)
    lines = ("12:pids:/slurm/job_7", "4:cpu,memory:/slurm/job_7", "0::/")
    assert free(tmp_path, *lines) == 4500
    assert free(tmp_path, "4:cpu,memory:/docker/unseen") == MACHINE
    old_group(memory, 1500)
    assert free(tmp_path, "4:cpu,memory:/docker/unseen") == 1550


def test_a_name_that_leads_out_of_the_mount_is_not_followed(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", "3000", used=1000, cached=0)
    group(tmp_path / "elsewhere", "10", used=0, cached=0)
    assert free(tmp_path, "0::/../elsewhere") == 2000


def test_files_that_make_no_sense_are_no_limit(tmp_path: Path) -> None:
    folder = group(tmp_path / "cgroup", "many", used=1)
    assert free(tmp_path, "0::/", "nonsense") == MACHINE
    group(folder, "1000")
    (folder / "memory.current").write_text("?\n")
    assert free(tmp_path, "0::/") == MACHINE


def test_files_that_stay_mapped_count_as_used(tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert host_memory_free(4000, none, none) == MACHINE - 4000
    assert host_memory_free(2 * MACHINE, none, none) == 0
    folder = group(tmp_path / "cgroup", "9000", used=6000, cached=500)
    (folder / "memory.stat").write_text("inactive_file 500\nactive_file 3000\n")
    # Of 6000 in use 3500 are files: 2500 and the mapped 4000 are needed, wherever those count.
    assert host_memory_free(4000, tmp_path / "cgroup", none) == 9000 - 2500 - 4000
    assert host_memory_free(0, tmp_path / "cgroup", none) == 9000 - 6000 + 500


def test_this_process_has_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 < host_memory_free() <= psutil.virtual_memory().total
