"""`--thoughts`: on stderr, never in the answer on stdout; JSON has them in any case."""

from __future__ import annotations

import io
import json
import sys

import pytest
from fakes import TEXT

QUESTION = "What do you think plays?"


def test_thoughts_are_shown_on_stderr_alone(run, clip, fake) -> None:
    code, out, err = run("ask", clip, QUESTION, "--thoughts")
    assert (code, out) == (0, f"{TEXT}\n")
    assert "Thoughts" in err
    assert "First I listen." in err
    assert "There is a piano." in err


@pytest.mark.parametrize("words", [(), ("--thoughts", "--quiet")])
def test_thoughts_are_not_shown_otherwise(run, clip, fake, words) -> None:
    code, out, err = run("ask", clip, QUESTION, *words)
    assert (code, out) == (0, f"{TEXT}\n")
    assert "listen" not in err


def test_a_model_that_does_not_think_shows_none(run, clip, fake) -> None:
    assert run("ask", clip, "Who plays?", "--thoughts") == (0, f"{TEXT}\n", "")


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_json_has_them_in_any_case(run, clip, fake, form) -> None:
    for words in ((), ("--thoughts",)):
        code, out, err = run("ask", clip, QUESTION, form, *words)
        assert (code, err) == (0, "")
        assert json.loads(out)["thinking"] == "First I listen.\n\nThere is a piano."
        assert json.loads(out)["text"] == TEXT


def test_they_stand_beside_the_full_report(run, clip, fake) -> None:
    _, out, err = run("ask", clip, QUESTION, "--thoughts", "--report", "full")
    assert out == f"{TEXT}\n"
    assert err.index("First I listen.") < err.index("Tokens entering each layer")


@pytest.mark.parametrize(("words", "shown"), [((), False), (("--thoughts",), True)])
def test_a_session_shows_them_too(run, clip, fake, monkeypatch, words, shown) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{QUESTION}\n".encode())))
    code, out, err = run("chat", clip, *words)
    assert (code, out) == (0, f"{TEXT}\n")
    assert ("First I listen." in err) == shown
