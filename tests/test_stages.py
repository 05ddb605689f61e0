"""Names of stages come from one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from omnidrop.profiling.result import LINES
from omnidrop.stages import StageName, prefix_stage

PACKAGE = Path(__file__).parent.parent / "omnidrop"
FILES = sorted(p for name in ("engine", "profiling") for p in (PACKAGE / name).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_stage_is_named_by_a_literal(path: Path) -> None:
    named = [
        argument.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in ("stage", "begin_earlier", "add")
        for argument in (*node.args, *(k.value for k in node.keywords if k.arg == "within"))
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
    assert not named


def test_every_stage_has_a_line_in_a_profile() -> None:
    counted = [stage for stages in LINES.values() for stage in stages]
    assert len(counted) == len(set(counted))
    # A profile generates its answers, is given its methods, and begins with a loaded model.
    assert set(StageName) - set(counted) == {StageName.CHOICES, StageName.FIT, StageName.LOAD}


def test_names_are_plain_text() -> None:
    assert f"{StageName.WAITING_FOR_SOUND}" == "waiting for sound" == StageName.WAITING_FOR_SOUND
    assert prefix_stage(2, 8) == "prefix through layer 2 of 8"
