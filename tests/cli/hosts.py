"""A process of `omnidrop serve` on the fake model, and clients of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes import HERE, ROOT, environment

#: Seconds in which a process starts or ends on a busy machine.
PATIENCE = 60.0


@dataclass
class Served:
    """A running host: its socket, and how to call it."""

    folder: Path
    options: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    said: str = ""

    @property
    def socket(self) -> Path:
        return self.folder / "serve.sock"

    def environment(self, **extra: str) -> dict[str, str]:
        return environment(OMNIDROP_SOCKET=str(self.socket), OMP_NUM_THREADS="1", **extra)

    def start(self) -> Served:
        """Start it, and wait until the model is loaded."""
        self.folder.chmod(0o700)
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fakes.py"), "serve", "--model", "demo", *self.options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment(**self.variables), cwd=ROOT,
        )  # fmt: skip
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert "is served at" in line, line + self.process.stderr.read()
        self.said = line
        return self

    def start_call(self, *words: object, cwd: Path = ROOT, **extra: str) -> subprocess.Popen[bytes]:
        """Start a command that finds it."""
        return subprocess.Popen(
            [sys.executable, str(HERE / "fakes.py"), *map(str, words)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environment(**extra), cwd=cwd,
        )  # fmt: skip

    def call(
        self, *words: object, stdin: bytes = b"", cwd: Path = ROOT, **extra: str
    ) -> tuple[int, bytes, bytes]:
        """Run a command that finds it; return exit code, stdout and stderr."""
        process = self.start_call(*words, cwd=cwd, **extra)
        out, err = process.communicate(stdin, timeout=PATIENCE)
        return process.returncode, out, err

    def status(self) -> dict[str, Any]:
        code, out, err = self.call("serve", "--status", "--json")
        assert code == 0, err
        return json.loads(out)

    def until(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until its state is such."""
        end = time.monotonic() + PATIENCE
        while not true(state := self.status()):
            assert time.monotonic() < end, state
        return state

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it by a signal; return its exit code and what else it wrote to stderr."""
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err
