"""What the command line's tests share: a short clip, a fake model, a subprocess."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import HERE, ROOT, environment


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in [n for n in os.environ if n.startswith("OMNIDROP_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


@pytest.fixture
def clip(tmp_path: Path, _short_clip: Path) -> Path:
    """A clip of half a second; the fake model answers about it without reading it."""
    path = tmp_path / "concert.mp4"
    shutil.copy(_short_clip, path)
    return path


@pytest.fixture(scope="session")
def _short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from omnidrop.testing import media

    return media.mp4(tmp_path_factory.mktemp("short") / "short.mp4", seconds=0.5)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    """The fake model, installed; its `log` says what was asked of it."""
    import fakes

    return fakes.install(monkeypatch.setattr)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; returns exit code, stdout and stderr."""
    from omnidrop_cli.main import run as invoke

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
            timeout=120,
            check=False,
        )

    return call
