"""`omnidrop chat` at a terminal of its own (a pseudo-terminal), on a model that answers at once."""

from __future__ import annotations

import os
import re
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fakes import HERE, ROOT, TEXT, environment

pytestmark = pytest.mark.slow

pty = pytest.importorskip("pty", exc_type=ImportError)


class Terminal:
    """A program at a terminal of its own: what is typed, and what it shows."""

    def __init__(self, handle: int, process: subprocess.Popen[bytes]) -> None:
        self._handle, self.process, self.seen = handle, process, ""

    def type(self, text: str) -> None:
        os.write(self._handle, text.encode())

    def wait_for(self, text: str, seconds: float = 60.0) -> str:
        """Return what was shown until `text`, and forget it."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            left = end - time.monotonic()
            if left < 0 or not select.select([self._handle], [], [], left)[0]:
                raise AssertionError(f"{text!r} did not appear in {self.seen!r}")
            try:
                read = os.read(self._handle, 4096).decode("utf-8", "replace")
            except OSError:
                read = ""
            if not read:
                raise AssertionError(f"{text!r} did not appear in {self.seen!r}")
            self.seen += re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", read)
        shown, _, self.seen = self.seen.partition(text)
        return shown

    def press_control_c(self) -> None:
        """Press Ctrl-C as a person does: not in the moment in which the prompt is being drawn."""
        time.sleep(0.5)
        self.type("\x03")

    def code(self) -> int:
        """Return the exit code once the program has ended."""
        with suppress(OSError):
            while os.read(self._handle, 4096):
                pass
        return self.process.wait(30)


@contextmanager
def terminal(clip: Path, *words: str, **extra: str) -> Iterator[Terminal]:
    """Run `omnidrop chat` on the fake model at a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fakes.py"), "chat", str(clip), *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(COLUMNS="80", **extra),
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=own_terminal,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def own_terminal() -> None:
    """Make stdin the terminal that sends Ctrl-C to this process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_conversation_at_a_terminal(clip, tmp_path) -> None:
    state = tmp_path / "state"
    with terminal(clip, XDG_STATE_HOME=str(state)) as screen:
        shown = screen.wait_for("> ")
        assert "concert.mp4" in shown
        assert "of the tokens" in shown
        screen.type("Who plays?\r")
        assert TEXT in screen.wait_for("> ")
        screen.type("/budget 0.2\r")
        assert "keeps 20 % of the tokens." in screen.wait_for("\n> ")
        screen.type("/help\r")
        assert "/at START [END]" in screen.wait_for("\n> ")
        screen.type("/report\r")
        assert "  question " in screen.wait_for("\n> ")
        screen.type("memory?\r")
        assert "Not enough memory." in screen.wait_for("\n> ")
        screen.type("/bugdet\r")
        assert "Did you mean /budget?" in screen.wait_for("\n> ")
        screen.type("\x04")
        assert screen.code() == 0
    history = state / "omnidrop" / "chat_history"
    assert history.read_text().splitlines()[:2] == ["Who plays?", "/budget 0.2"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


@pytest.mark.slow
def test_earlier_lines_come_back_with_the_arrows(clip, tmp_path) -> None:
    pytest.importorskip("readline")
    state = {"XDG_STATE_HOME": str(tmp_path)}
    with terminal(clip, **state) as screen:
        screen.wait_for("> ")
        screen.type("Who plays?\r")
        screen.wait_for("\n> ")
        screen.type("/quit\r")
        assert screen.code() == 0
    with terminal(clip, **state) as screen:
        screen.wait_for("> ")
        screen.type("\x1b[A\x1b[A\r")
        assert "Who plays?" in screen.wait_for(TEXT)
        screen.wait_for("\n> ")
        screen.type("/turn\tof\bff\r")
        assert "Each question stands alone." in screen.wait_for("\n> ")
    before = (tmp_path / "omnidrop" / "chat_history").read_text()
    with terminal(clip, "--no-history", **state) as screen:
        screen.wait_for("> ")
        screen.type("Secret?\r")
        screen.wait_for("\n> ")
    assert (tmp_path / "omnidrop" / "chat_history").read_text() == before


@pytest.mark.slow
def test_control_c_stops_an_answer_and_twice_at_the_prompt_leaves(clip, tmp_path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path), "FAKE_PAUSE": "3"}
    with terminal(clip, **state) as screen:
        screen.wait_for("> ")
        screen.type("Who plays?\r")
        screen.wait_for("A piano")
        screen.press_control_c()
        shown = screen.wait_for("\n> ")
        assert "Stopped; the session goes on, without this question." in shown
        screen.press_control_c()
        assert "Ctrl-C once more leaves" in screen.wait_for("\n> ")
        screen.type("/at\r")  # a line in between: the next one is a first again
        assert "the whole clip" in screen.wait_for("\n> ")
        screen.press_control_c()
        screen.wait_for("\n> ")
        screen.press_control_c()
        assert screen.code() == 130


@pytest.mark.slow
def test_answers_may_go_to_a_file(clip, tmp_path) -> None:
    """Then the prompt does not: stdout holds answers alone."""
    ours, theirs = pty.openpty()
    target = tmp_path / "answers.txt"
    with target.open("w") as stdout:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "fakes.py"), "chat", str(clip)],
            stdin=theirs,
            stdout=stdout,
            stderr=theirs,
            env=environment(XDG_STATE_HOME=str(tmp_path)),
            cwd=ROOT,
            start_new_session=True,
        )
    os.close(theirs)
    screen = Terminal(ours, process)
    try:
        screen.wait_for("> ")
        screen.type("Who plays?\n")
        screen.wait_for("\n> ")
        screen.type("\x04")
        assert screen.code() == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert target.read_text() == f"{TEXT}\n"


@pytest.mark.slow
def test_letters_that_are_no_utf8_do_not_end_the_session(clip, tmp_path) -> None:
    with terminal(clip, XDG_STATE_HOME=str(tmp_path)) as screen:
        screen.wait_for("> ")
        os.write(screen._handle, b"Who\xff plays?\r")
        assert TEXT in screen.wait_for("\n> ")
        screen.type("/quit\r")
        assert screen.code() == 0


@pytest.mark.slow
def test_without_readline_it_still_works(clip, tmp_path) -> None:
    (tmp_path / "readline.py").write_text("raise ImportError('not on this machine')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with terminal(clip, XDG_STATE_HOME=str(tmp_path), PYTHONPATH=path) as screen:
        screen.wait_for("> ")
        screen.type("Who plays?\r")
        assert TEXT in screen.wait_for("\n> ")
        screen.type("\x04")
        assert screen.code() == 0
    assert (tmp_path / "omnidrop" / "chat_history").read_text() == "Who plays?\n"
