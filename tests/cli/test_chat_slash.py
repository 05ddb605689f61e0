"""What a line of a chat is."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidrop.errors import UsageError
from omnidrop_cli.chat.slash import (
    NAMES,
    SLASHES,
    Line,
    as_typed,
    read_line,
    read_path,
    read_span,
    read_switch,
    read_target,
)
from omnidrop_cli.options.common import SpanFlags


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("  ", None),
        (" Who speaks? \n", Line(None, "Who speaks?")),
        ("//5 or 6?", Line(None, "/5 or 6?")),
        ("/at", Line("at", "")),
        ("/at  0:30 1:00 ", Line("at", "0:30 1:00")),
        ("/BUDGET 0.2", Line("budget", "0.2")),
        ("/q", Line("quit", "")),
        ("/exit", Line("quit", "")),
        ("/?", Line("help", "")),
    ],
)
def test_lines(typed: str, line: Line | None) -> None:
    assert read_line(typed) == line


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("/bugdet 0.2", "Did you mean /budget?"),
        ("/re", "Did you mean /reset or /report?"),
        ("/methods", "Did you mean /method?"),
        ("/xyzzy", "/help lists the commands; two slashes begin a question."),
        ("/", "/help lists the commands; two slashes begin a question."),
    ],
)
def test_an_unknown_command_says_what_was_meant(typed: str, hint: str) -> None:
    with pytest.raises(UsageError) as problem:
        read_line(typed)
    assert problem.value.hint == hint


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0:30 1:00", SpanFlags(30, 60)),
        ("0:30-1:00", SpanFlags(30, 60)),
        ("0:30 – 1:00", SpanFlags(30, 60)),
        ("75", SpanFlags(75)),
        ("off", SpanFlags()),
        ("ALL", SpanFlags()),
    ],
)
def test_spans(text: str, span: SpanFlags) -> None:
    assert read_span(text) == span


@pytest.mark.parametrize("text", ["1 2 3", "noon", "1:00 0:30"])
def test_no_spans(text: str) -> None:
    with pytest.raises(UsageError):
        read_span(text)


def test_switches() -> None:
    assert (read_switch("ON"), read_switch("off")) == (True, False)
    with pytest.raises(UsageError, match="neither on nor off"):
        read_switch("maybe")


def test_paths_may_be_quoted_or_escaped(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = tmp_path / "my talk.mp4"
    for text in (str(wanted), f"'{wanted}'", str(wanted).replace(" ", "\\ ")):
        assert read_path(text.replace("my talk.mp4", "talk.mp4"), "open").name.endswith("talk.mp4")
    for text in (f"'{wanted}'", str(wanted).replace(" ", "\\ "), "'~/my talk.mp4'"):
        assert read_path(text, "open") == wanted
    odd = tmp_path / "it's 'one'.mp4"
    odd.touch()
    assert read_path(str(odd), "open") == odd
    assert read_path("it's.mp4", "open") == Path("it's.mp4")
    with pytest.raises(UsageError, match="/open needs a file"):
        read_path("", "open")


def test_targets() -> None:
    assert read_target("a b.html") == Path("a b.html")
    with pytest.raises(UsageError, match=r"/save cannot write 'talk\.mp4'"):
        read_target("talk.mp4")


def test_complaints_name_what_is_typed_here() -> None:
    told = as_typed(UsageError("--budget 3 is not valid.", hint="Drop --method or --preset."))
    assert told.paragraph() == "/budget 3 is not valid. Drop /method or --preset."


def test_every_command_is_described_once() -> None:
    assert len(set(NAMES)) == len(SLASHES)
    assert all(slash.help and slash.usage.startswith(f"/{slash.name}") for slash in SLASHES)
