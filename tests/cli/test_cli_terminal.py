"""On a terminal: streaming, progress, Ctrl-C, pipes that close.

Every test starts a process that imports torch; those marked slow are left to CI.
"""

from __future__ import annotations

import io
import os
import re
import select
import signal
import subprocess
import sys
import time

import fakes
import pytest
from fakes import HERE, ROOT, environment
from rich.cells import cell_len

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix terminal")
FAKE = [sys.executable, str(HERE / "fakes.py")]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: What a spinner draws, up to where it is taken off the screen.
SPINNER = re.compile(r"(?:\r[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] [^\r\n]*\x1b\[K)+\r\x1b\[K")


def on_terminal(
    *words: object, width: int = 80, stop_at: str = "", start: list[str] = FAKE, **extra: str
):
    """Run on a terminal of its own; returns exit code and everything seen but the spinner."""
    code, seen = raw_terminal(*words, width=width, stop_at=stop_at, start=start, **extra)
    return code, SPINNER.sub("", seen)


def raw_terminal(
    *words: object, width: int = 80, stop_at: str = "", start: list[str] = FAKE, **extra: str
):
    """Run on a terminal of its own; returns exit code and everything seen."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    process = subprocess.Popen(
        [*start, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment(**extra), cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen, until = b"", time.monotonic() + 30
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                data = os.read(ours, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data
            if stop_at and stop_at.encode() in seen:
                process.send_signal(signal.SIGINT)
                stop_at = ""
        elif process.poll() is not None:
            break
    code = process.wait(10)
    os.close(ours)
    return code, seen.decode("utf-8").replace("\r\n", "\n")


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 200])
def test_full_report_and_answer_on_a_terminal(clip, width) -> None:
    flags = ("--report", "full")
    code, seen = on_terminal("ask", clip, "What?", *flags, width=width, COLORTERM="truecolor")
    assert code == 0
    assert seen.startswith(fakes.TEXT)
    assert "Tokens entering each layer" in seen
    assert "\x1b[48;2;" in seen or ";48;2;" in seen
    assert max(cell_len(line) for line in ESCAPES.sub("", seen).splitlines()) <= width
    foot = ESCAPES.sub("", seen).split()
    assert " ".join(foot[-16:]).endswith(f"{fakes.TEXT} how sure very, about 92 %")


@pytest.mark.slow
@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour(clip, plain) -> None:
    code, seen = on_terminal("ask", clip, "What?", "--report", "full", **plain)
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9])", seen)
    assert "▒" in seen
    if "TERM" in plain:
        assert "\x1b" not in seen


SUMMARY = """
  how sure  very, about 92 %
  moments   0:22–0:30, 0:04–0:06
  used      120 frames of video, 60.0 s of audio
  cost      first token after 3.38 s, 30 % of tokens kept, 19.4 GB on the GPU
  more: --report full
"""


@pytest.mark.slow
@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "dumb"])
def test_a_summary_follows_one_answer(clip, term) -> None:
    code, seen = on_terminal("ask", clip, "What?", TERM=term)
    assert code == 0
    assert ESCAPES.sub("", seen) == f"{fakes.TEXT} \n{SUMMARY}"
    assert ("\x1b" in seen) == (term != "dumb")


@pytest.mark.slow
def test_several_answers_are_a_list(clip) -> None:
    code, seen = on_terminal("ask", clip, "-q", "One?", "-q", "And the second?", NO_COLOR="1")
    assert code == 0
    lines = seen.splitlines()
    above = next(i for i, line in enumerate(lines) if line.startswith("  One?"))
    assert "".join(line.strip() for line in lines[:above]) == str(clip)  # a long path is wrapped
    rows = lines[above:]
    assert rows == [
        "  One?             → A piano plays first; the strings come in at       92 % sure",
        "                     0:24.",
        "  And the second?  → A piano plays first; the strings come in at       92 % sure",
        "                     0:24.",
        "",
        "  cost      first token after 0.58 to 3.38 s, 30 % of tokens kept,",
        "            19.4 GB on the GPU",
        "  more: --report full",
    ]


@pytest.mark.slow
def test_json_on_a_terminal_is_not_streamed(clip) -> None:
    code, seen = on_terminal("ask", clip, "What?", "--json", "--report", "none")
    assert code == 0
    assert seen.startswith('{\n  "schema"')


@pytest.mark.slow
def test_errors_are_wrapped_to_the_terminal(clip) -> None:
    code, seen = on_terminal("ask", clip, "bug?", width=50, NO_COLOR="1")
    assert code == 1
    assert len(seen.splitlines()) > 2
    assert max(map(len, seen.splitlines())) <= 50


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("CLIP",), '\n  omnidrop ask CLIP "What happens?"\n'),
        (("https://youtu.be/x", "What?"), "\n  yt-dlp -S ext -o clip.mp4 https://youtu.be/x\n"),
    ],
)
def test_a_command_in_an_error_can_be_copied(clip, words, said) -> None:
    code, seen = on_terminal(*(str(clip) if w == "CLIP" else w for w in words), NO_COLOR="1")
    assert code == 2
    assert said.replace("CLIP", str(clip)) in seen


@pytest.mark.slow
def test_long_stages_have_a_bar_that_goes_away(clip) -> None:
    code, seen = on_terminal("ask", clip, "What?", FAKE_PAUSE="1.5")
    assert code == 0
    assert "prefill" in seen.split(fakes.TEXT[:8])[0]
    assert "━" in seen
    _, seen = on_terminal("ask", clip, "What?", "--quiet", FAKE_PAUSE="1.2")
    assert seen.strip() == fakes.TEXT


@pytest.mark.slow
def test_short_stages_have_none(clip) -> None:
    _, seen = on_terminal("ask", clip, "What?", "--report", "none")
    assert seen.strip() == fakes.TEXT


@pytest.mark.slow
def test_no_bar_without_a_terminal(child, clip) -> None:
    done = child("ask", clip, "What?", FAKE_PAUSE="1.2")
    assert (done.returncode, done.stdout, done.stderr) == (0, fakes.TEXT + "\n", "")


#: The command line, with an import of torch that waits until a spinner has been drawn.
WAITING = """
import importlib.abc, sys, time
from omnidrop_cli.terminal import spinner
class Wait(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            until = time.monotonic() + 20
            while spinner._running is None or not spinner._running._is_drawn:
                assert time.monotonic() < until, "torch is imported before a spinner is drawn"
                time.sleep(0.01)
        return None
sys.meta_path.insert(0, Wait())
from omnidrop_cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_spinner_turns_before_torch_is_imported(clip) -> None:
    code, seen = raw_terminal(
        "ask", clip, "What plays?", "--model", "demo", "--device", "cpu", "--report", "none",
        start=[sys.executable, "-c", WAITING],
    )  # fmt: skip
    assert code == 0, seen
    assert seen.startswith("\r⠋ starting\x1b[K\r")
    assert len(SPINNER.findall(seen)) == 1
    assert "⠋" not in SPINNER.sub("", seen)  # and never again after the first word


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["--quiet"], {}),
        ([], {"OMNIDROP_QUIET": "1"}),
        ([], {"TERM": "dumb"}),
        (["--help"], {}),
    ],
)
def test_where_no_spinner_turns(clip, words, extra) -> None:
    code, seen = raw_terminal("ask", clip, "What?", *words, FAKE_PAUSE="0.8", **extra)
    assert code == 0
    assert "starting" not in seen
    assert "\r" not in seen


@pytest.mark.slow
def test_a_spinner_is_gone_before_a_complaint(clip) -> None:
    code, seen = raw_terminal("ask", clip, "memory?", FAKE_PAUSE="0.8", NO_COLOR="1")
    assert code == 5
    assert SPINNER.sub("", seen).startswith("omnidrop: error: Not enough memory.")


@pytest.mark.slow
def test_a_spinner_goes_on_under_a_notice(clip) -> None:
    code, seen = raw_terminal(
        "What plays?", clip, "--model", "demo", "--device", "cpu", "--report", "none",
        start=[sys.executable, "-c", WAITING],
    )  # fmt: skip
    assert code == 0, seen
    before, _, after = seen.partition("it usually comes last.\n")
    assert before.count("omnidrop: ") == 1
    assert re.match(r"\r. starting\x1b\[K", after)
    assert "starting" not in SPINNER.sub("", after)


def test_streams_are_their_own_again_after_the_spinner(monkeypatch) -> None:
    from omnidrop_cli.terminal import spinner

    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    for write in (lambda: print("x"), spinner.stop, lambda: print("x", file=sys.stderr)):
        monkeypatch.setattr(spinner, "is_terminal", lambda stream: True)
        monkeypatch.setattr(spinner, "PATIENCE", 0.0)
        spinner.start(["ask", "clip.mp4", "What?"])
        assert sys.stdout is not out
        until = time.monotonic() + 10
        while "starting" not in err.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
        assert "starting" in err.getvalue()
        write()
        assert (sys.stdout, sys.stderr) == (out, err)
        assert "\r\x1b[K" in err.getvalue()
        spinner.stop()
        err.seek(0)
        err.truncate()


@pytest.mark.slow
def test_interrupt_is_quiet(clip) -> None:
    code, seen = on_terminal("ask", clip, "What?", stop_at="━", FAKE_PAUSE="8")
    assert code == 130
    assert "Traceback" not in seen
    assert "error" not in seen


@pytest.mark.slow
def test_interrupt_without_a_terminal(clip) -> None:
    process = subprocess.Popen(
        [*FAKE, "ask", str(clip), "What?"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(FAKE_PAUSE="20"), cwd=ROOT,
    )  # fmt: skip
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--jsonl"], ["--json"]])
def test_a_reader_that_goes_away_is_no_error(clip, form) -> None:
    questions = [word for i in range(40) for word in ("-q", f"Question {i}?")]
    process = subprocess.Popen(
        [*FAKE, "ask", str(clip), *questions, *form], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment(), cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(20) == 0
    assert err == b""


def test_control_characters_of_an_answer_do_not_reach_the_terminal() -> None:
    from omnidrop_cli.terminal.console import for_terminal

    assert for_terminal("a\x1b[2Jb\x07\n\tc é 音") == "a\\x1b[2Jb\\x07\n\tc é 音"
