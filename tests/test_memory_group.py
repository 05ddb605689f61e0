"""A real control group with a limit below the need: refused with exit code 5, not killed.

It needs a machine where groups may be made, such as a container that may write `/sys/fs/cgroup`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from omnidrop.host_memory import MOUNT, OWN
from omnidrop.testing import media
from tests.models import full_size

ROOT = Path(__file__).parents[1]
#: Enters a group, and becomes another Python.
ENTER = (
    "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)
Run = Callable[..., subprocess.CompletedProcess[str]]


def own_folders() -> Iterator[tuple[Path, str]]:
    """Yield where this process's memory group is, and the name of the file with its limit."""
    for line in OWN.read_text().splitlines() if OWN.exists() else ():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield MOUNT / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
        elif number == "0":
            yield MOUNT / path.lstrip("/"), "memory.max"


@pytest.fixture
def limited() -> Iterator[Callable[[int], Run]]:
    """Make a group with a limit; return what runs Python in it."""
    made: list[Path] = []

    def limit(size: int) -> Run:
        for folder, name in own_folders():
            group = folder / f"omnidrop-test-{os.getpid()}"
            with suppress(OSError):
                group.mkdir()
                made.append(group)
                (group / name).write_text(str(size))
                return lambda *words: run(group, *words)
        pytest.skip("no control group with a limit can be made here")

    yield limit
    for group in made:
        for _ in range(50):  # a process that has just ended may still be counted
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def run(group: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMNIDROP_CONFIG": os.devnull}
    return subprocess.run(
        [sys.executable, "-c", ENTER, str(group / "cgroup.procs"), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_the_group_leaves_is_what_there_is(limited: Callable[[int], Run]) -> None:
    found = limited(400_000_000)(
        "-c", "from omnidrop.host_memory import host_memory_free as f; print(f())"
    )
    assert found.returncode == 0, found.stderr
    assert 200_000_000 < int(found.stdout) <= 400_000_000


@pytest.mark.slow
def test_a_model_that_does_not_fit_is_refused(
    limited: Callable[[int], Run], tmp_path: Path
) -> None:
    folder = full_size.qwen2_5_omni(tmp_path / "model", "3b")
    clip = media.mp4(tmp_path / "clip.mp4", seconds=1.0)
    words = ("ask", str(clip), "What plays?", "--model", str(folder), "--device", "cpu")
    run = limited(3_000_000_000)
    for flags in ((), ("--4bit",)):
        found = run("-m", "omnidrop_cli", *words, *flags)
        assert (found.returncode, found.stdout) == (5, ""), found.stderr
        assert "memory" in found.stderr
