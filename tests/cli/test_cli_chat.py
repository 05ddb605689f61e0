"""`omnidrop chat` on a model that answers at once: from a pipe, and at a terminal."""

from __future__ import annotations

import io
import json
import os
import re
import select
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fakes import HERE, ROOT, TEXT, environment

pty = pytest.importorskip("pty")


@pytest.fixture
def chat(run, clip, fake, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Run `omnidrop chat` with these lines on stdin."""

    def call(*lines: str, words: tuple[object, ...] = ()) -> tuple[int, str, str]:
        stdin = io.TextIOWrapper(io.BytesIO("".join(f"{line}\n" for line in lines).encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        return run("chat", clip, *words)

    return call


def test_a_pipe_gives_one_line_per_question(chat, fake) -> None:
    code, out, err = chat("Who plays?", "", "/turns on", "And then?", "Last?")
    assert (code, out, err) == (0, f"{TEXT}\n" * 3, "")
    assert fake.log == [
        "load None",
        "open concert.mp4",
        "ask concert.mp4 Who plays?",
        "ask concert.mp4 And then? after 1",
        "ask concert.mp4 Last? after 2",
        "close concert.mp4",
    ]


def test_a_last_line_without_a_line_break_counts(run, clip, fake, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Who?\nWhen\xff?")))
    code, out, _ = run("chat", clip)
    assert (code, out) == (0, f"{TEXT}\n" * 2)
    assert fake.log[-2].startswith("ask concert.mp4 When")


def test_a_failed_question_keeps_its_line_and_is_no_turn(chat, fake) -> None:
    code, out, err = chat("Who plays?", "memory?", "bug?", "/bugdet 1", "Last?")
    assert (code, out) == (6, f"{TEXT}\n\n\n{TEXT}\n")
    assert fake.log[-2] == "ask concert.mp4 Last? after 1"
    assert "omnidrop: error: Not enough memory. Lower --max-pixels." in err
    assert "RuntimeError: tensor of the wrong shape" in err
    assert "There is no command /bugdet. Did you mean /budget?" in err


def test_alone_and_the_demo_model(chat, fake) -> None:
    chat("One?", "Two?", words=("--alone",))
    assert not [line for line in fake.log if "after" in line]
    fake.info.demo = True
    chat("One?", "Two?", "/turns on", "Three?", "Four?", "/turns off", "Five?")
    assert [line for line in fake.log if "after" in line] == ["ask concert.mp4 Four? after 1"]


def test_reset_forgets_the_turns(chat, fake) -> None:
    chat("One?", "Two?", "/reset", "Three?", "Four?")
    assert [line for line in fake.log if "after" in line] == [
        "ask concert.mp4 Two? after 1",
        "ask concert.mp4 Four? after 1",
    ]


def test_a_span_and_another_clip(chat, fake, clip, tmp_path) -> None:
    other = tmp_path / "other film.mp4"
    other.write_bytes(clip.read_bytes())
    code, out, err = chat(
        "One?", "/at 0:00.2", "Two?", "/at off", "Three?", f"/open {other}", "Four?",
        "/open nothing.mp4", "/at 9:00", "Five?",
    )  # fmt: skip
    assert code == 6  # two commands failed, and the questions went on
    assert out == f"{TEXT}\n" * 5
    assert "nothing.mp4: There is no such file." in err
    assert "start (540 s) is not before the end" in err
    assert [line for line in fake.log if line.startswith(("open", "ask"))] == [
        "open concert.mp4",
        "ask concert.mp4 One?",
        "open concert.mp4 0.2",
        "ask concert.mp4 Two? after 1",
        "ask concert.mp4 Three? after 2",
        "open other film.mp4",
        "ask other film.mp4 Four?",
        "ask other film.mp4 Five? after 1",
    ]


def test_budget_method_and_choices(chat, capsys) -> None:
    code, out, _ = chat(
        "One?", "/budget 0.2", "Two?", "/method uniform", "Three?", "/method none", "Four?",
        "/budget 0.5", "/method fastv", "/budget 7", "/choices yes,no", "Five?", "/choices off",
        "Six?",
        words=("--jsonl",),
    )  # fmt: skip
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 6  # none keeps all, and there is no budget of 7
    assert [row["trace"]["asked_budget"] for row in rows] == [0.3, 0.2, 0.2, 1.0, 0.3, 0.3]
    assert [row["text"] for row in rows[-2:]] == ["yes", TEXT]


def test_commands_complain_in_their_own_words(chat) -> None:
    code, out, err = chat(
        "/budget 7", "/method omnidorp", "/choices yes", "/report", "/save x.html", "/turns 3",
        words=("--preset", "dash-29"),
    )  # fmt: skip
    assert (code, out) == (6, "")
    text = " ".join(err.split())
    for part in (
        "sets the budget. /method NAME leaves the preset.",
        "Did you mean omnidrop",
        "/choices 'yes' does not name two or more choices",
        "There is no answer to report on.",
        "There is no answer to save.",
        "/turns 3 is neither on nor off.",
    ):
        assert part in text


@pytest.mark.parametrize("suffix", ["json", "html", "txt"])
def test_save(chat, tmp_path, suffix) -> None:
    target, end = tmp_path / f"talk.{suffix}", tmp_path / "end.json"
    code, *_ = chat("Who plays?", f"/save {target}", "Why?", f"/save {target}", "Last?",
                    words=("--save", end))  # fmt: skip
    assert code == 0
    text = target.read_text("utf-8")
    assert "Who plays?" in text
    assert "Why?" in text
    assert "Last?" not in text
    found = json.loads(end.read_text("utf-8"))
    assert [answer["question"] for answer in found["answers"]] == ["Who plays?", "Why?", "Last?"]


def test_a_file_of_someone_else_is_kept(chat, tmp_path) -> None:
    target = tmp_path / "talk.txt"
    target.write_text("mine")
    code, _, err = chat("Who plays?", f"/save {target}")
    assert code == 6
    assert "The file exists." in err
    assert target.read_text() == "mine"


def test_notices_appear_once(run, clip, fake, monkeypatch, tmp_path) -> None:
    cut = tmp_path / "cut.mp4"
    clip.rename(cut)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"One?\nTwo?\n")))
    _, _, err = run("chat", cut)
    assert err.count("The file ends at 0:58") == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"One?\nTwo?\n")))
    assert run("chat", cut, "--quiet")[2] == ""


def test_an_interrupt_ends_a_script_and_keeps_what_was_answered(chat, tmp_path) -> None:
    end = tmp_path / "end.json"
    code, out, _ = chat("One?", "interrupt", "Three?", words=("--save", end))
    assert (code, out) == (130, f"{TEXT}\n")
    assert len(json.loads(end.read_text())["answers"]) == 1


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
        assert "omnidrop keeps 30 % of the tokens" in shown
        screen.type("Who plays?\r")
        assert TEXT in screen.wait_for("> ")
        screen.type("/budget 0.2\r")
        assert "omnidrop keeps 20 % of the tokens." in screen.wait_for("\n> ")
        screen.type("/help\r")
        assert "/at START [END]" in screen.wait_for("\n> ")
        screen.type("/report\r")
        assert "Settings" in screen.wait_for("\n> ")
        screen.type("memory?\r")
        assert "Not enough memory." in screen.wait_for("\n> ")
        screen.type("/bugdet\r")
        assert "Did you mean /budget?" in screen.wait_for("\n> ")
        screen.type("\x04")
        assert screen.code() == 0
    history = state / "omnidrop" / "chat_history"
    assert history.read_text().splitlines()[:2] == ["Who plays?", "/budget 0.2"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


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


def test_control_c_stops_an_answer_and_twice_at_the_prompt_leaves(clip, tmp_path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path), "FAKE_PAUSE": "8"}
    with terminal(clip, **state) as screen:
        screen.wait_for("> ")
        screen.type("Who plays?\r")
        screen.wait_for("A piano")
        screen.type("\x03")
        shown = screen.wait_for("\n> ")
        assert "Stopped; the session goes on, without this question." in shown
        screen.type("\x03")
        assert "Ctrl-C once more leaves" in screen.wait_for("\n> ")
        screen.type("/at\r")  # a line in between: the next one is a first again
        assert "the whole clip" in screen.wait_for("\n> ")
        screen.type("\x03")
        screen.wait_for("\n> ")
        screen.type("\x03")
        assert screen.code() == 130


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
