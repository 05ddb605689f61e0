"""The client of a warm model: what it offers, where it looks, and whom it trusts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import ROOT, environment

from omnidrop.begun import state_folder
from omnidrop.errors import UsageError
from omnidrop_cli.main import _group
from omnidrop_cli.options.serve import ServeFlags, parse_address, parse_keep_alive
from omnidrop_cli.serving import client, protocol

pytestmark = pytest.mark.skipif(not protocol.is_supported(), reason="no Unix sockets")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private folder with a socket that somebody listens at and never answers."""
    folder = tmp_path / "place"
    folder.mkdir(mode=0o700)
    path = folder / "serve.sock"
    monkeypatch.setenv("OMNIDROP_SOCKET", str(path))
    where, handle = protocol.address(str(path))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(where)
        listener.listen()
        path.chmod(0o600)
        yield path
    if handle is not None:
        os.close(handle)


def test_every_command_is_served_or_not() -> None:
    commands = set(_group().commands)
    assert set(protocol.SERVED) <= commands
    assert commands - set(protocol.SERVED) <= client.OTHERS
    assert not client.OTHERS & set(protocol.SERVED)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ask", "a.mp4", "What?"], True),
        (["a.mp4", "What?"], True),
        (["chat", "a.mp4"], True),
        (["batch", "rows.csv", "--out", "x"], True),
        (["ask", "a.mp4", "--", "--help"], True),
        ([], False),
        (["ask", "--help"], False),
        (["ask", "a.mp4", "What?", "--debug"], False),
        (["ask", "a.mp4", "What?", "--no-serve"], False),
        (["models"], False),
        (["serve"], False),
        (["help", "ask"], False),
    ],
)
def test_what_is_offered_to_it(words, offered) -> None:
    assert client.may_be_served(words) is offered


@pytest.mark.parametrize(
    ("variable", "value", "offered"),
    [
        ("OMNIDROP_NO_SERVE", "1", False),
        ("OMNIDROP_NO_SERVE", "false", True),
        ("OMNIDROP_NO_SERVE", "", True),
        ("OMNIDROP_DEBUG", "1", False),
        ("_OMNIDROP_COMPLETE", "complete_bash", False),
    ],
)
def test_variables_keep_it_out(monkeypatch, variable, value, offered) -> None:
    monkeypatch.setenv(variable, value)
    assert client.may_be_served(["ask", "a.mp4", "What?"]) is offered


def test_where_it_looks(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert protocol.socket_path() == str(state_folder() / "serve" / "serve.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert protocol.socket_path() == str(tmp_path / "omnidrop" / "serve.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    assert protocol.socket_path() == str(state_folder() / "serve" / "serve.sock")
    monkeypatch.setenv("OMNIDROP_SOCKET", "~/mine.sock")
    assert protocol.socket_path() == os.path.expanduser("~/mine.sock")


def test_a_socket_of_another_user_is_not_used(place, monkeypatch) -> None:
    protocol.connect(str(place), 1).close()
    monkeypatch.setattr(protocol, "peer_user", lambda link: os.geteuid() + 1)
    with pytest.raises(PermissionError, match="another user"):
        protocol.connect(str(place), 1)
    assert client.run(["ask", "a.mp4", "What?"]) is None


def test_a_socket_that_others_could_reach_is_not_used(place) -> None:
    place.parent.chmod(0o750)
    with pytest.raises(PermissionError, match="alone"):
        protocol.connect(str(place), 1)
    assert client.run(["ask", "a.mp4", "What?"]) is None


def test_a_file_that_is_no_socket_is_not_used(tmp_path, monkeypatch) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "file").touch()
    monkeypatch.setenv("OMNIDROP_SOCKET", str(tmp_path / "file"))
    assert client.run(["ask", "a.mp4", "What?"]) is None


def test_a_host_that_does_not_answer_is_not_waited_for(place, monkeypatch) -> None:
    monkeypatch.setattr(client, "ANSWER_WITHIN", 0.05)
    with pytest.MonkeyPatch.context() as patch:  # pytest's own streams have no such thing
        patch.setattr(client, "hello", lambda words: {"say": "run"})
        assert client.run(["ask", "a.mp4", "What?"]) is None


def test_the_host_hears_nobody_else(monkeypatch, tmp_path) -> None:
    from omnidrop_cli.serving.host import Host

    host = Host.__new__(Host)  # what it hears first needs no model
    heard = []
    monkeypatch.setattr(Host, "_answer", lambda self, *said: heard.append(said))
    for user, count in ((os.geteuid() + 1, 0), (os.geteuid(), 1)):
        monkeypatch.setattr(protocol, "peer_user", lambda link, user=user: user)
        ours, theirs = socket.socketpair()
        with ours:
            protocol.send(ours, {"say": "status"})
            host._hear(theirs)
            assert len(heard) == count
            with suppress(ConnectionResetError):
                assert ours.recv(10) == b""


def test_messages_and_files_arrive_whole() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message = {"say": "run", "words": ["\udcff", "ü", "x" * 300_000]}
        thread = threading.Thread(target=protocol.send, args=(ours, message, (0, 1)))
        thread.start()
        found, files = protocol.receive_with_files(theirs)
        thread.join(10)
        assert found == message
        assert len(files) == 2
        for file in files:
            os.close(file)
        ours.close()
        assert protocol.receive(theirs) is None


def test_a_long_path_is_no_obstacle(tmp_path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir(mode=0o700)
    path = str(folder / "serve.sock")
    where, handle = protocol.address(path)
    if handle is None:
        pytest.skip("Linux alone")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(where)
        os.close(handle)
        listener.listen()
        protocol.connect(path, 1).close()


def test_finding_no_warm_model_costs_next_to_nothing(tmp_path) -> None:
    code = (
        "import sys; before = set(sys.modules); from omnidrop_cli.serving import client\n"
        "assert client.run(['ask', 'a.mp4', 'What?']) is None\n"
        "print(sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env=environment(OMNIDROP_SOCKET=str(tmp_path / "none.sock")),
    )  # fmt: skip
    imported = set(eval(done.stdout))
    assert imported <= {"omnidrop_cli", *sys.stdlib_module_names}
    assert not {"dataclasses", "pathlib", "inspect"} & imported


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("2 h", 7200), ("0", 0), ("0s", 0), ("1d", 86400)],
)
def test_how_long_it_is_kept(text, seconds) -> None:
    assert parse_keep_alive(text) == seconds
    assert ServeFlags(keep_alive=parse_keep_alive(text)).seconds == seconds


def test_it_may_be_kept_always() -> None:
    assert ServeFlags(keep_alive=parse_keep_alive("always")).seconds is None
    with pytest.raises(UsageError, match="not a duration"):
        parse_keep_alive("soon")


@pytest.mark.parametrize("text", ["8000", "host", "host:", "host:x", "host:70000", "h:²"])
def test_a_wrong_address_is_refused(text) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_address(text)


def test_an_address() -> None:
    assert parse_address("0.0.0.0:80") == "0.0.0.0:80"
    assert parse_address(":8000") == "127.0.0.1:8000"
    assert parse_address("[::1]:8000") == "[::1]:8000"
