"""Reads a saved page as a browser's parser would, and complains of what is not well-formed."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

VOID = {"br", "hr", "img", "input", "meta"}
INLINE = {"strong", "small", "q", "a", "i"}
REFERENCES = ("src", "href", "poster", "xlink:href", "srcset", "action", "data", "background")


class Page(HTMLParser):
    """What is in a page.

    Attributes
    ----------
    tags : list of str
    ids, references : list of str
    attributes : list of (tag, dict)
    texts : dict of list of str by tag
        What stands directly in elements of each kind.
    data : str
        The JSON.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.data = ""
        self._words: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []

    @classmethod
    def read(cls, path: Path) -> Page:
        """Return a whole page, all of whose elements are closed in order."""
        page = cls()
        page.feed(path.read_text("utf-8"))
        page.close()
        assert page._open == []
        assert len(page.ids) == len(set(page.ids))
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), f"{tag} has an attribute twice"
        assert not [name for name in given if name.startswith("on") or name == "style"]
        self.tags.append(tag)
        self._words.append("" if tag in INLINE else " ")
        self.attributes.append((tag, given))
        self.references += [v or "" for k, v in attrs if k in REFERENCES]
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag not in VOID:
            self._open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> ends nothing"
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if not self._open:
            assert not data.strip()
            return
        tag, given = self._open[-1]
        if tag == "script" and given.get("type") == "application/json":
            self.data += data
        else:
            self.texts.setdefault(tag, []).append(data)
            self._words.append("" if tag in ("style", "script") else data)

    def value(self) -> Any:
        """Return the JSON."""
        return json.loads(self.data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of a kind."""
        return [given for name, given in self.attributes if name == tag]

    def said(self) -> str:
        """Return all text in order, but for styles and scripts."""
        return " ".join("".join(self._words).split())
