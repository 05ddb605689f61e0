"""`omnidrop serve`: a command on the warm model does what it does in a process of its own."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import HERE, ROOT, TEXT
from hosts import PATIENCE, Served

from omnidrop_cli.serving import protocol

REFUSED = b'{"say": "refused", "why": "its process is of another installation of omnidrop"}'
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not protocol.is_supported(), reason="no Unix sockets"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A host that the tests of this file share."""
    host = Served(tmp_path_factory.mktemp("serve")).start()
    yield host
    assert host.end() == (0, "")
    assert not host.socket.exists()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A host for one test."""
    folder = tmp_path / "own"
    folder.mkdir()
    host = Served(folder)
    yield host
    if host.process is not None and host.process.poll() is None:
        host.process.kill()
        host.process.communicate()


@pytest.fixture
def both(served, run, fake, monkeypatch):
    """Run a command on the warm model and in this process; return what both did.

    Returns exit code, stdout and stderr of both, and how often the warm model was used.
    """

    def call(*words: object, stdin: bytes = b"", cwd: Path = ROOT, **extra: str):
        before = served.status()["uses"]
        warm = served.call(*words, stdin=stdin, cwd=cwd, **extra)
        uses = served.status()["uses"] - before
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            patch.delenv("COLUMNS")
            for name, value in extra.items():
                patch.setenv(name, value)
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
            code, out, err = run(*words)
        return warm, (code, out.encode(), err.encode()), uses

    return call


@pytest.mark.parametrize(
    "words",
    [
        ("ask", "CLIP", "What plays?"),
        ("CLIP", "What plays?"),
        ("What", "plays?", "CLIP"),
        ("ask", "CLIP", "Is it?", "--choices", "yes,no", "--json"),
        ("ask", "CLIP", "-q", "One?", "-q", "Two?", "--jsonl"),
        ("ask", "CLIP", "CLIP2", "What plays?", "--report", "brief"),
        ("ask", "CLIP", "What plays?", "--report", "full"),
        ("ask", "CLIP", "What plays?", "--report", "settings", "--budget", "0.2"),
        ("ask", "CLIP", "a question out of memory", "--quiet"),
        ("ask", "CLIP", "a bug"),
        ("ask", "CLIP", "missing.mp4", "What plays?"),
        ("ask", "CLIP", "What plays?", "--save", "a.json", "--save", "a.html", "--force"),
        ("ask", "CLIP", "CLIP2", "What plays? ünïcode"),
    ],
    ids=lambda words: " ".join(words)[:50],
)
def test_a_command_on_the_warm_model_is_the_same(both, clip, words) -> None:
    (clip.parent / "cut.mp4").write_bytes(clip.read_bytes())
    names = {"CLIP": clip.name, "CLIP2": "cut.mp4"}
    warm, alone, uses = both(*(names.get(w, w) for w in words), cwd=clip.parent)
    assert warm == alone
    assert uses == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("ask", "none.mp4", "What plays?"), 3),
        (("ask", "CLIP", "What?", "--budget", "2"), 2),
        (("ask", "CLIP", "What?", "--nothing"), 2),
        (("aks", "CLIP", "What?"), 2),
        (("ask", "CLIP"), 2),
    ],
)
def test_a_mistake_is_the_same(both, clip, words, code) -> None:
    words = [clip if word == "CLIP" else word for word in words]
    warm, alone, uses = both(*words)
    assert warm == alone
    assert warm[0] == code
    assert uses == 0


def test_stdin_is_the_callers(both, clip) -> None:
    for words, said in (
        (("ask", "-", "What plays?"), f"{clip}\n{clip}\n"),
        (("ask", clip, "-"), "What plays?\n"),
        (("chat", clip), "What plays?\n/report\nAnd then?\n/nothing\n"),
        (("chat", clip, "--jsonl"), "What plays?\n"),
    ):
        warm, alone, uses = both(*words, stdin=said.encode())
        assert warm == alone
        assert uses == 1


def test_width_and_options_are_the_callers(both, clip) -> None:
    for extra in (
        {"COLUMNS": "60"},
        {"COLUMNS": "90", "NO_COLOR": "1", "OMNIDROP_CHOICES": "yes,no"},
        {"COLUMNS": "130", "OMNIDROP_REPORT": "full", "OMNIDROP_BUDGET": "0.5"},
    ):
        warm, alone, uses = both("ask", clip, "What plays?", "--report", "full", **extra)
        assert warm == alone
        assert uses == 1


def test_the_encoding_is_the_callers(served, clip) -> None:
    words = ("ask", clip, "What plays? ü", "--report", "full")
    found = [
        served.call(*words, PYTHONIOENCODING="ascii", **extra)
        for extra in ({}, {"OMNIDROP_NO_SERVE": "1"})
    ]
    assert found[0] == found[1]
    assert b"\\xfc" in found[0][2]


def test_the_config_file_is_the_callers(both, clip, tmp_path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[ask]\nbudget = 0.2\nreport = "full"\n')
    warm, alone, _ = both("ask", clip, "What plays?", OMNIDROP_CONFIG=str(config))
    assert warm == alone
    assert b"budget 0.2 asked" in warm[2]
    config.write_text("no-serve = true\n")
    _, _, uses = both("ask", clip, "What plays?", OMNIDROP_CONFIG=str(config))
    assert uses == 0
    config.write_text("nonsense = 1\n")
    warm, alone, _ = both("ask", clip, "What plays?", OMNIDROP_CONFIG=str(config))
    assert warm == alone
    assert warm[0] == 2


def test_new_files_have_the_rights_that_the_caller_gives(served, clip, tmp_path) -> None:
    for mask, mode in (("027", 0o640), ("077", 0o600)):
        words = f"{sys.executable} {HERE / 'fakes.py'} ask {clip} What? --save a.txt --force"
        subprocess.run(
            ["sh", "-c", f"umask {mask}; {words}"], cwd=tmp_path, env=served.environment(),
            check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE,
        )  # fmt: skip
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


def test_batch_is_the_same(served, clip, tmp_path) -> None:
    rows = [{"clip": str(clip), "question": f"What plays {i}?"} for i in range(3)]
    rows += [{"clip": "none.mp4", "question": "What?"}]
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = []
    for name, extra in (("warm", {}), ("alone", {"OMNIDROP_NO_SERVE": "1"})):
        code, out, err = served.call("batch", manifest, "--out", tmp_path / name, **extra)
        lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for line in lines:
            del line["seconds"]
        said = re.sub(rb"[0-9.]+ (m?s|min)\b", b"TIME", err.replace(name.encode(), b"OUT"))
        found.append((code, out, said, lines))
    assert found[0] == found[1]
    assert found[0][0] == 6


def test_a_reader_that_closes_the_pipe_has_what_it_wanted(served, clip) -> None:
    for _ in range(2):
        line = f"{sys.executable} {HERE / 'fakes.py'} ask {clip} -q A? -q B? -q C?"
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line} | head -1"],
            capture_output=True, env=served.environment(), cwd=ROOT, check=False, timeout=PATIENCE,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.count(b"\n") == 1
    assert served.call("ask", clip, "What?")[1].decode() == f"{TEXT}\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--dtype", "bfloat16"), "its dtype is float32, not bfloat16"),
        (("--4bit",), "its quantize is none, not 4bit"),
        (("--model", "3b"), "HF_HOME differs|HOME differs|3B.* is not on this machine"),
    ],
)
def test_what_it_cannot_take_goes_on_by_itself(served, clip, words, why) -> None:
    before = served.status()["uses"]
    code, out, err = served.call("ask", clip, "What plays?", *words, "--report", "full")
    assert (code, out) == (0, f"{TEXT}\n".encode())
    said = " ".join(err.decode().split())
    assert re.search(rf"The warm model of omnidrop serve was not used: .*({why})", said)
    assert served.status()["uses"] == before
    assert b"warm" not in served.call("ask", clip, "What plays?", *words)[2]


@pytest.mark.parametrize(
    "extra",
    [{"OMP_NUM_THREADS": "2"}, {"CUDA_VISIBLE_DEVICES": "0"}, {"OMNIDROP_NO_SERVE": "yes"}],
)
def test_variables_that_libraries_read_must_be_the_same(served, clip, extra) -> None:
    before = served.status()["uses"]
    environment = served.environment() | extra
    done = subprocess.run(
        [sys.executable, str(HERE / "fakes.py"), "ask", str(clip), "What?"],
        env=environment, cwd=ROOT, capture_output=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stdout.decode() == f"{TEXT}\n"
    assert served.status()["uses"] == before


def test_the_client_imports_nothing_heavy(served, clip) -> None:
    code = (
        "import sys; from omnidrop_cli.serving import client\n"
        f"code = client.run(['ask', {str(clip)!r}, 'What plays?'])\n"
        "heavy = {'torch', 'transformers', 'typer', 'rich', 'numpy', 'av', 'dataclasses'}\n"
        "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=served.environment(), cwd=ROOT, capture_output=True, text=True, check=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.stdout == f"{TEXT}\n"
    assert done.stderr == "0 []\n"


def test_ctrl_c_is_the_same(served, clip) -> None:
    for words in (("ask", clip, "-q", "One?", "-q", "Two?"), ("ask", clip, "One?", "--json")):
        found = []
        for extra in ({}, {"OMNIDROP_NO_SERVE": "1"}):
            call = served.start_call(*words, FAKE_PAUSE="3", **extra)
            if not extra:
                served.until(lambda state: state["running"] == "ask")
            time.sleep(1.0 if not extra else 4.0)
            call.send_signal(signal.SIGINT)
            out, err = call.communicate(timeout=PATIENCE)
            found.append((call.returncode, out, err))
        assert found[0] == found[1]
        assert found[0][0] == 130
    assert served.call("ask", clip, "What?")[1].decode() == f"{TEXT}\n"


def test_a_client_that_is_killed_frees_the_model(served, clip) -> None:
    call = served.start_call("ask", clip, "What?", FAKE_PAUSE="50")
    served.until(lambda state: state["running"] == "ask")
    call.kill()
    call.communicate(timeout=PATIENCE)
    assert served.call("ask", clip, "What?")[1].decode() == f"{TEXT}\n"


def test_several_clients_wait_their_turn(served, clip) -> None:
    calls = [
        served.start_call("ask", clip, f"What {number}?", "--json", FAKE_PAUSE="0.2")
        for number in range(4)
    ]
    for number, call in enumerate(calls):
        out, err = call.communicate(timeout=PATIENCE)
        assert (call.returncode, err) == (0, b"")
        assert json.loads(out)["question"] == f"What {number}?"


def test_nobody_waits_for_the_end_of_a_chat(served, clip) -> None:
    chat = served.start_call("chat", clip)
    try:
        served.until(lambda state: state["running"] == "chat")
        code, out, err = served.call("ask", clip, "What?", "--report", "full")
        assert (code, out.decode()) == (0, f"{TEXT}\n")
        assert "not used: omnidrop chat uses it." in " ".join(err.decode().split())
    finally:
        out, _ = chat.communicate(b"What?\n", timeout=PATIENCE)
    assert out.decode() == f"{TEXT}\n"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x0e" + b'{"say": "run"}',
        b"\x00\x00\x00\x0d" + b'{"say":"run"}',
        b"\x00\x00\x00\x64{",
    ],
)
def test_nonsense_harms_nobody(served, clip, said) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(served.socket))
        link.sendall(said)
        link.shutdown(socket.SHUT_WR)
        link.settimeout(PATIENCE)
        with suppress(ConnectionResetError):
            assert link.recv(100)[4:] in (b"", REFUSED)
    assert served.call("ask", clip, "What?")[1].decode() == f"{TEXT}\n"


def test_only_its_user_can_open_the_socket(served) -> None:
    found = served.socket.lstat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()


def test_its_state(served) -> None:
    code, out, err = served.call("serve", "--status")
    assert (code, err) == (0, b"")
    shown = out.decode()
    assert re.search(r"^model +tiny, .*; dropped after 5 min 00 s without use$", shown, re.M)
    assert re.search(r"^memory +\d", shown, re.M)
    assert str(served.socket) in shown
    state = served.status()
    assert state["schema"] == "omnidrop.serve/1"
    assert state["loaded"] is True
    assert state["host_memory"] > 10**7


def test_a_second_one_is_told(served) -> None:
    code, out, err = served.call("serve", "--model", "demo")
    assert (code, out) == (2, b"")
    assert b"omnidrop serve runs already." in err


def test_a_stale_socket_is_replaced_and_stop_ends_it(own, clip) -> None:
    own.start()
    own.end(signal.SIGKILL)
    assert own.socket.exists()
    code, out, _ = own.call("ask", clip, "What?")  # nobody is there: by itself
    assert (code, out.decode()) == (0, f"{TEXT}\n")
    code, _, err = own.call("serve", "--status")
    assert code == 4
    assert b"No omnidrop serve runs here" in err
    own.start()
    assert own.call("ask", clip, "What?")[1].decode() == f"{TEXT}\n"
    assert own.status()["uses"] == 2
    assert own.call("serve", "--stop") == (0, b"", b"")
    assert own.process is not None
    assert own.process.wait(1) == 0
    assert not own.socket.exists()
    assert own.call("serve", "--stop")[0] == 4


def test_a_host_that_is_killed_in_the_middle_is_an_error(own, clip, tmp_path) -> None:
    own.start()
    call = own.start_call("ask", clip, "What?", FAKE_PAUSE="50")
    own.until(lambda state: state["running"] == "ask")
    own.end(signal.SIGKILL)
    out, err = call.communicate(timeout=PATIENCE)
    assert (call.returncode, out) == (4, b"")
    assert err.decode().splitlines() == [
        "omnidrop: error: omnidrop serve ended in the middle of this command. Run it again, or "
        "with --no-serve."
    ]

    own.start()
    manifest, answers = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    manifest.write_text("clip,question\n" + "".join(f"{clip},What {i}?\n" for i in range(8)))
    call = own.start_call("batch", manifest, "--out", answers, "--quiet", FAKE_PAUSE="0.3")
    own.until(lambda state: answers.exists() and answers.read_text().count("\n") >= 2)
    own.end(signal.SIGKILL)
    _, err = call.communicate(timeout=PATIENCE)
    assert call.returncode == 0
    assert err.decode() == "omnidrop: notice: omnidrop serve ended; going on without it.\n"
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert sorted(row["question"] for row in rows) == [f"What {i}?" for i in range(8)]


def test_ctrl_c_ends_it_in_the_middle_of_a_command(own, clip) -> None:
    own.start()
    call = own.start_call("ask", clip, "What?", FAKE_PAUSE="50")
    own.until(lambda state: state["running"] == "ask")
    assert own.end(signal.SIGINT) == (0, "")
    _, err = call.communicate(timeout=PATIENCE)
    assert call.returncode == 4
    assert b"omnidrop serve was stopped in the middle of this command" in err
    assert not own.socket.exists()


def test_an_idle_model_is_dropped_and_loaded_again(own, clip) -> None:
    own.options = ("--keep-alive", "1s")
    own.start()
    own.until(lambda state: not state["loaded"])
    assert own.call("ask", clip, "What?")[1].decode() == f"{TEXT}\n"
    own.until(lambda state: not state["loaded"])
    assert own.status()["uses"] == 2


def test_memory_does_not_grow(served, clip) -> None:
    def many(count: int) -> int:
        code = (
            "from omnidrop_cli.serving import client\n"
            f"for i in range({count}):\n"
            f"    words = ['ask', {str(clip)!r}, 'What?', '--report', 'full']\n"
            "    assert client.run(words) == 0\n"
            f"    assert client.run(['ask', {str(clip)!r}, 'a bug', '--json']) == 1\n"
        )
        subprocess.run(
            [sys.executable, "-c", code], env=served.environment(), cwd=ROOT, check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE,
        )  # fmt: skip
        time.sleep(1)
        return served.status()["host_memory"]

    assert served.process is not None
    first, files = many(20), len(os.listdir(f"/proc/{served.process.pid}/fd"))
    second = many(100)
    assert len(os.listdir(f"/proc/{served.process.pid}/fd")) == files
    assert second - first < 4e6
