"""Numbers that overflow somewhere are refused as usage, whichever option or variable has them."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main

from omnidrop.clip.options import ClipOptions
from omnidrop.errors import UsageError
from omnidrop.options import GenerateOptions, LoadOptions
from omnidrop_cli import app as application
from omnidrop_cli.main import run
from omnidrop_cli.options.groups import variable

GROUP: Any = typer.main.get_command(application.app)
KINDS = (int, float, int | None, float | None)
NUMERIC = [
    (command, parameter)
    for command in GROUP.commands.values()
    for parameter in command.params
    if parameter.param_type_name == "option" and parameter.type_descriptor.annotation in KINDS
]
SLOW = pytest.mark.slow
HUGE = (
    pytest.param("1e308", marks=SLOW),
    "9" * 30,
    pytest.param("1e-320", marks=SLOW),
    pytest.param("-" + "9" * 30, marks=SLOW),
)


@pytest.mark.parametrize("value", HUGE, ids=["large", "long", "small", "negative"])
@pytest.mark.parametrize(
    ("command", "parameter"), NUMERIC, ids=[f"{c.name}-{max(p.opts, key=len)}" for c, p in NUMERIC]
)
def test_no_number_is_a_bug(command, parameter, value, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = [f"nothing-{i}.mp4" for i, _ in enumerate(arguments)] + ["What?"]
    code = run([command.name, *words, f"{max(parameter.opts, key=len)}={value}"])
    said = capsys.readouterr().err
    assert code in (2, 3, 4), said
    assert "bug" not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--fps", "1e308"),
        ("--fps", "1e-320"),
        ("--max-frames", "9" * 30),
        ("--max-pixels", "9" * 30),
        ("--temperature", "1e-320"),
        ("--temperature", "1e308"),
        ("--max-new-tokens", "9" * 400),
        ("--seed", "9" * 30),
        ("--start", "1e300"),
        ("--device", "cuda:99999999999"),
        ("--video-track", "9" * 30),
    ],
)
def test_as_an_option_and_in_the_environment(name, value, monkeypatch, capsys, tmp_path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"not opened")
    assert run(["ask", str(clip), "What?", name, value]) == 2
    assert name in capsys.readouterr().err or name == "--device"
    monkeypatch.setenv(variable(name), value)
    assert run(["ask", str(clip), "What?"]) == 2


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ClipOptions, {"fps": 10**400}),
        (ClipOptions, {"end": 10**400}),
        (ClipOptions, {"max_frames": 10**400}),
        (GenerateOptions, {"temperature": 10**400}),
        (GenerateOptions, {"temperature": -(10**400)}),
        (LoadOptions, {"device": "cuda:٣"}),
    ],
    ids=["fps", "end", "frames", "hot", "cold", "digits"],
)
def test_the_library_refuses_them(kind, values) -> None:
    with pytest.raises(UsageError):
        kind(**values)


def test_usual_numbers_are_accepted() -> None:
    ClipOptions(fps=240.0, max_frames=2**31 - 1, max_pixels=2**31 - 1, end=10.0**8)
    ClipOptions(fps=0.001)
    GenerateOptions(temperature=0.01, max_new_tokens=100_000, seed=2**63 - 1)
    LoadOptions(device="cuda:15")
