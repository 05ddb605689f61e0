"""docs/cli.md is what the commands' help texts make of it."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from fakes import ROOT
from test_cli_options import GROUP


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(maker, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "57")  # no matter how wide the terminal is
    current = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert maker.page() == current, "run: python docs/make_cli.py"


def test_the_page_has_every_option(maker) -> None:
    from test_cli_options import OPTIONS

    text = maker.page()
    for command, parameter in OPTIONS:
        assert f"## omnidrop {command.name}\n" in text
        assert max(parameter.opts, key=len) in text


@pytest.mark.parametrize("page", ["--help", "--help-all"])
@pytest.mark.parametrize("command", sorted(GROUP.commands))
def test_help_fits_80_columns_and_breaks_no_name(command, page, run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = run(command, page)
    assert code == 0
    lines = text.splitlines()
    assert lines[0].startswith(f"Usage: omnidrop {command} ")
    assert not [line for line in lines if len(line) > 80]
    assert not [line for line in lines if line.endswith("-")]
