"""What the command line's tests share: clips that only exist, a fake model, and a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import HERE, ROOT, environment


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("OMNIDROP_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A file that the fake takes for a clip."""
    path = tmp_path / "concert.mp4"
    path.write_bytes(b"not really a video")
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    """The fake model, installed; its `log` says what was asked of it."""
    import fakes

    return fakes.install(monkeypatch.setattr)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; returns exit code, stdout and stderr."""
    from omnidrop_cli.errors import run as invoke

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = invoke([os.fspath(w) if isinstance(w, Path) else str(w) for w in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def child() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line on the fake model in a process of its own."""

    def call(*words: object, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(HERE / "fakes.py"), *map(str, words)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment(**extra),
            cwd=ROOT,
            timeout=60,
            check=False,
        )

    return call
