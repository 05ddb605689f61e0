"""The script on open constants: it changes one setting at a time, and each to another value."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from omnidrop.pruning.registry import get_method
from omnidrop_cli.options.eval import EntrantFlags

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "sensitivity", raising=False)
    import sensitivity

    return sensitivity


def test_each_variant_changes_one_setting(script: ModuleType) -> None:
    for name in script.METHODS:
        check(name, script.variants(name))


def check(name: str, asked: dict[str, str]) -> None:
    assert asked
    usual = get_method(name).settings()
    flags = EntrantFlags(variants=[f"{label}={variant}" for label, variant in asked.items()])
    read = flags.labelled()
    assert [label for label, *_ in read] == list(asked)
    for label, method, fields in read:
        changed = get_method(method, **fields).settings()
        different = [key for key in usual if changed[key] != usual[key]]
        assert different == [label.split()[0]], label
