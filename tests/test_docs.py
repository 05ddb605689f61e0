"""Paths and links in the documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: A file or folder of this repository as it stands in text, in backticks.
PATH = re.compile(r"`((?:omnidrop|omnidrop_cli|tests|samples|benchmarks|docs|examples)/[^\s`]*)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_the_patterns_find_what_they_look_for() -> None:
    assert PATH.findall("see `omnidrop/clip/` and `omnidrop ask`") == ["omnidrop/clip/"]
    assert LINK.findall("[a](b.md#c) ![d](e.svg)") == ["b.md#c", "e.svg"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    missing = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    for target in LINK.findall(text):
        file = target.partition("#")[0]
        if not file.startswith("http") and not (page.parent / file).exists():
            missing.append(target)
    assert not missing


def test_the_map_of_the_code_names_every_package() -> None:
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    packages = {path.parent.name for path in (ROOT / "omnidrop").glob("*/__init__.py")}
    assert packages
    assert not [name for name in packages if f"`omnidrop/{name}/`" not in text]


def test_the_page_on_the_library_has_every_error_and_its_exit_code() -> None:
    import omnidrop

    rows = (ROOT / "docs" / "library.md").read_text("utf-8").splitlines()
    kinds = [getattr(omnidrop, name) for name in omnidrop.__all__ if name.endswith("Error")]
    named = [kind for kind in kinds if kind is not omnidrop.OmniDropError]
    assert len(named) == 6
    for kind in named:
        (row,) = [row for row in rows if f"`{kind.__name__}`" in row]
        assert f"| {kind.exit_code} |" in row


def test_the_readme_counts_the_other_methods() -> None:
    import omnidrop

    words = {16: "Sixteen", 17: "Seventeen", 18: "Eighteen", 19: "Nineteen", 20: "Twenty"}
    others = set(omnidrop.methods()) - {"omnidrop", "none"}
    text = (ROOT / "README.md").read_text("utf-8")
    assert f"{words[len(others)]} other methods are built in" in text
    assert len(text.splitlines()) <= 120


def test_the_fields_of_a_batch_are_those_of_the_library() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_fields", ROOT / "docs" / "make_fields.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    text = (ROOT / "docs" / "batch.md").read_text("utf-8")
    assert maker.page(text) == text, "run: python docs/make_fields.py"
