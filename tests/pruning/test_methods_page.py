"""docs/methods.md is what the docstrings say, and these have one pattern."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from pathlib import Path

import pytest

from omnidrop.pruning.compose import Compose
from omnidrop.pruning.method import Method
from omnidrop.pruning.registry import methods, wrappers

DOCS = Path(__file__).resolve().parents[2] / "docs"
WRITTEN = {**methods(), **wrappers()}
KINDS = {**WRITTEN, "composition": Compose}


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_methods", DOCS / "make_methods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_docstrings(maker):
    written = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert written == maker.document(), "run: python docs/make_methods.py"


@pytest.mark.parametrize("name", KINDS)
def test_every_setting_has_a_meaning(maker, name):
    _, about = maker.sections(KINDS[name])
    assert set(about) == {field.name for field in fields(KINDS[name])}
    assert all(about.values())


@pytest.mark.parametrize("name", sorted(set(methods()) - {"none"}))
def test_every_docstring_says_what_is_published_and_what_is_ours(maker, name):
    paragraphs, _ = maker.sections(KINDS[name])
    assert "\n" not in paragraphs[0]
    assert paragraphs[1].startswith("Based on ")
    assert "https://arxiv.org/abs/" in paragraphs[1]
    assert [p.split(":")[0] for p in paragraphs if p.startswith(("Published:", "Ours:"))] == [
        "Published",
        "Ours",
    ]


def test_the_page_names_every_method(maker):
    page = maker.document()
    assert all(f"\n## {name}\n" in page for name in methods())
    assert all(f"METHOD@{name}\n" in page for name in wrappers())
    assert Method.name in methods()
