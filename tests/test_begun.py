"""A crash of the process costs one clip: what was begun and not ended is left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from omnidrop.begun import Begun, _Note, state_folder
from omnidrop.errors import MediaError

CALL = """
import os, signal, sys
from pathlib import Path
from omnidrop.begun import Begun
from omnidrop.errors import MediaError
folder, how = Path(sys.argv[1]), sys.argv[2]
with Begun(folder, "note", keep=sys.argv[3] == "keep") as begun:
    for name in "abc":
        try:
            with begun.reading(folder / name):
                if name == "b" and how == "abort":
                    os.abort()
                if name == "b" and how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                print(name, flush=True)
        except MediaError as error:
            print(error.what, flush=True)
"""


def call(folder: Path, how: str = "", keep: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CALL, str(folder), how, keep], capture_output=True, check=False
    )
    return done.stdout.decode().split("\n")[:-1]


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_crash_leaves_the_clip_out_at_the_next_call(folder):
    assert call(folder, "abort") == ["a"]
    lost = "Reading this clip ended the whole process in an earlier call (Aborted)."
    assert call(folder) == ["a", lost, "c"]
    assert not list(folder.glob("note-*"))
    assert call(folder) == ["a", "b", "c"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_kill_is_forgiven_once(folder):
    assert call(folder, "kill") == ["a"]
    assert call(folder, "kill") == ["a"]
    assert call(folder) == ["a", "The process was killed 2 times while it read this clip.", "c"]
    assert call(folder, "kill") == ["a"]
    assert call(folder) == ["a", "b", "c"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_note_is_kept_until_the_file_changes(folder):
    assert call(folder, "abort", "keep") == ["a"]
    for _ in range(2):
        assert call(folder, "", "keep")[::2] == ["a", "c"]
    (folder / "b").write_bytes(b"another clip")
    assert call(folder, "", "keep") == ["a", "b", "c"]


def test_notes_of_living_processes_are_left_alone(folder):
    with Begun(folder, "note") as one, one.reading(folder / "a"):
        with Begun(folder, "note") as two, two.reading(folder / "a"):
            assert len(list(folder.glob("note-*"))) == 2
        assert len(list(folder.glob("note-*"))) == 1
    assert not list(folder.glob("note-*"))


def test_errors_and_interrupts_are_no_crash(folder):
    for problem in (MediaError("no"), KeyboardInterrupt()):
        with (
            pytest.raises(type(problem)),
            Begun(folder, "note") as begun,
            begun.reading(folder / "a"),
        ):
            raise problem
    assert not list(folder.glob("note-*"))


def test_a_note_that_is_no_note_and_a_folder_that_is_none(folder, monkeypatch):
    (folder / "note-1").write_bytes(b'{"reading": 3')
    (folder / "note-2").write_bytes(b"[]\n")
    with Begun(folder, "note") as begun, begun.reading(folder / "a"):
        pass
    with Begun(folder / "a" / "b", "note") as begun, begun.reading(folder / "a"):
        pass
    with Begun(None) as begun, begun.reading(folder / "missing", 1.0, None):
        pass
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    assert state_folder() == folder / "omnidrop"


TWO = """
import os, signal, sys
from pathlib import Path
from omnidrop.begun import Begun
folder, how = Path(sys.argv[1]), sys.argv[2]
with Begun(folder, "note") as begun:
    with begun.reading(folder / "a"):
        if how == "goes on":
            begun.goes_on(folder / "a")
        with begun.reading(folder / "b"):
            os.abort() if how == "abort" else os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("how", ["abort", "kill"])
def test_of_two_clips_read_at_once_neither_is_blamed(folder, how):
    for _ in range(3):
        subprocess.run([sys.executable, "-c", TWO, str(folder), how], check=False)
    with Begun(folder, "note") as begun:
        assert begun.has_suspects
        with begun.reading(folder / "a"):
            begun.goes_on(folder / "a")
        with begun.reading(folder / "b"):
            pass
        assert not begun.has_suspects


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_kills_in_a_clip_that_went_on_between_them_do_not_add_up(folder):
    one = TWO.replace('with begun.reading(folder / "b"):', "if True:")
    for _ in range(3):
        subprocess.run([sys.executable, "-c", one, str(folder), "goes on"], check=False)
    with Begun(folder, "note") as begun, begun.reading(folder / "a"):
        assert not begun.has_suspects


def test_a_note_of_the_former_format_is_understood(folder):
    (folder / "note-1").write_bytes(
        b'{"reading": "x", "notes": {"x": [1, ""]}}\nFatal Python error: Aborted\n'
    )
    with Begun(folder, "note") as begun:
        assert begun._notes == {"x": _Note(1, "Aborted")}
