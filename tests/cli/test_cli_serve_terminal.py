"""A command on the warm model at a terminal: it is typed to, interrupted and suspended as ever."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator

import pytest
from fakes import TEXT
from hosts import Served

pytest.importorskip("pty", exc_type=ImportError)

from test_cli_chat_terminal import terminal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    host = Served(tmp_path_factory.mktemp("serve")).start()
    yield host
    assert host.end() == (0, "")


def test_a_conversation_at_a_terminal(served, clip, tmp_path) -> None:
    before = served.status()["uses"]
    state = tmp_path / "state"
    here = {"OMNIDROP_SOCKET": str(served.socket), "OMP_NUM_THREADS": "1"}
    with terminal(clip, XDG_STATE_HOME=str(state), **here) as screen:
        assert "concert.mp4" in screen.wait_for("> ")
        assert served.status()["running"] == "chat"
        screen.type("Who plays?\r")
        assert TEXT in screen.wait_for("> ")
        screen.type("/bugdet\r")
        assert "Did you mean /budget?" in screen.wait_for("\n> ")
        screen.type("\x04")
        assert screen.code() == 0
    history = state / "omnidrop" / "chat_history"
    assert history.read_text().splitlines() == ["Who plays?", "/bugdet"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with terminal(clip, XDG_STATE_HOME=str(tmp_path / "other"), **here) as screen:
        screen.wait_for("> ")
        screen.type("\x1b[A/turns\r")  # no line of the other session comes back
        assert "A question sees the turns" in screen.wait_for("\n> ")
        screen.type("/quit\r")
        assert screen.code() == 0
    assert served.status()["uses"] == before + 2


def test_control_c_and_control_z(served, clip, tmp_path) -> None:
    here = {"OMNIDROP_SOCKET": str(served.socket), "OMP_NUM_THREADS": "1", "FAKE_PAUSE": "3"}
    with terminal(clip, XDG_STATE_HOME=str(tmp_path), **here) as screen:
        screen.wait_for("> ")
        screen.type("Who plays?\r")
        screen.wait_for("A piano")
        screen.press_control_c()
        assert "Stopped; the session goes on" in screen.wait_for("\n> ")

        time.sleep(0.5)
        # As a shell with job control sends it; here the program leads a session of its own.
        os.kill(screen.process.pid, signal.SIGTSTP)
        time.sleep(1.5)
        screen.type("/at\r")
        time.sleep(0.5)
        assert "whole clip" not in screen.seen
        os.kill(screen.process.pid, signal.SIGCONT)
        assert "the whole clip" in screen.wait_for("\n> ")

        screen.press_control_c()
        assert "Ctrl-C once more leaves" in screen.wait_for("\n> ")
        screen.press_control_c()
        assert screen.code() == 130
    code, out, _ = served.call("ask", clip, "What?")
    assert (code, out.decode()) == (0, f"{TEXT}\n")


def test_closing_the_terminal_frees_the_model(served, clip, tmp_path) -> None:
    here = {"OMNIDROP_SOCKET": str(served.socket), "OMP_NUM_THREADS": "1"}
    with terminal(clip, XDG_STATE_HOME=str(tmp_path), **here) as screen:
        screen.wait_for("> ")
    served.until(lambda state: state["running"] == "")
    code, out, _ = served.call("ask", clip, "What?")
    assert (code, out.decode()) == (0, f"{TEXT}\n")
