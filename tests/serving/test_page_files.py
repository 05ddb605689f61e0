"""The served page's files: nothing inline, nothing from elsewhere, no text parsed as HTML."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "omnidrop" / "serving" / "page"
FILES = sorted(PAGE.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
HTML = (PAGE / "index.html").read_text("utf-8")


def named(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", FILES, ids=named)
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(https?|wss?|ftp):|[\"'(=]\s*//\w|@import|url\((?!data:)", text)


def test_nothing_is_inline() -> None:
    assert not re.search(r"<style|\sstyle\s*=|\son\w+\s*=|javascript:", HTML, re.IGNORECASE)
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", HTML, re.DOTALL)
    assert scripts == [(' type="module" src="app.js"', "")]


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_no_text_is_parsed_as_html(path: Path) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|setHTML"
    runs = r"\beval\(|new Function|setTimeout\(\s*[\"'`]|setAttribute\(\s*[\"']on"
    assert not re.search(f"{ways}|{runs}|createContextualFragment", path.read_text("utf-8"))


def test_every_file_is_used_and_there() -> None:
    named = set(re.findall(r'(?:src|href)="([\w.]+)"', HTML))
    for path in SCRIPTS:
        named |= set(re.findall(r'from "\./([\w.]+)"', path.read_text("utf-8")))
    assert named | {"index.html"} == {path.name for path in FILES}


def test_scripts_name_elements_that_are_there() -> None:
    ids = re.findall(r'\sid="([\w-]+)"', HTML)
    assert len(ids) == len(set(ids))
    for path in SCRIPTS:
        asked = set(re.findall(r'\$\("([\w-]+)"\)', path.read_text("utf-8")))
        assert asked <= set(ids), path.name
    pointed = re.findall(r'\s(?:for|aria-\w+by)="([\w -]+)"', HTML)
    assert {one for value in pointed for one in value.split()} <= set(ids)


def test_every_field_has_a_label() -> None:
    fields = re.findall(r"<(?:input|textarea|select)\b([^>]*)>", HTML)
    for field in fields:
        if re.search(r"\shidden\b", field):
            continue
        name = re.search(r'id="([\w-]+)"', field)
        assert name is not None, field
        around = rf'<label[^>]*>(?:(?!</label>).)*id="{name[1]}"'
        assert f'for="{name[1]}"' in HTML or re.search(around, HTML, re.DOTALL), name[1]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read(theme: str) -> None:
    """Contrast as WCAG 2.2 counts it: 4.5 for words, 3 for edges of fields and marks."""
    colours = palette(theme)
    for paper in ("paper", "surface"):
        for ink in ("ink", "muted", "link", "warn"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
        for mark in ("edge", "video", "audio", "moment", "good", "plain"):
            assert contrast(colours[mark], colours[paper]) >= 3, (mark, paper)
    assert contrast(colours["ink"], colours["warn-paper"]) >= 4.5
    assert contrast(colours["on-link"], colours["link"]) >= 4.5
    assert contrast(colours["muted"], colours["track"]) >= 4.5


def palette(theme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", (PAGE / "style.css").read_text("utf-8"), re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    return found | (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark)) if theme == "dark" else {}
    )


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_palette_is_that_of_saved_pages() -> None:
    saved = (ROOT / "omnidrop_cli" / "page" / "style.css").read_text("utf-8")
    names = ("paper", "surface", "ink", "muted", "line", "link", "audio", "video", "moment")
    for block, theme in zip(re.findall(r":root \{(.*?)\}", saved, re.DOTALL), ("light", "dark"),
                            strict=False):  # fmt: skip
        theirs = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        assert {n: palette(theme)[n] for n in names} == {n: theirs[n] for n in names}


@pytest.mark.slow
def test_the_page_is_in_the_wheel(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    built = next(
        wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    )
    packed = set(zipfile.ZipFile(built).namelist())
    assert {f"omnidrop/serving/page/{path.name}" for path in FILES} <= packed
