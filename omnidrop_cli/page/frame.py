"""The frame of every saved page: head, style, script, and the data as JSON.

The Content-Security-Policy lets a page load pictures from itself only, media from its own folder,
and runs one script, named by its hash. Without scripts every link still leads somewhere.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from omnidrop.files import to_json
from omnidrop_cli.page.html import Markup, join, tag


@cache
def _part(name: str) -> str:
    return (resources.files("omnidrop_cli.page") / name).read_text("utf-8").strip()


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def policy(style: str, script: str | None) -> str:
    """Return the Content-Security-Policy of a page with these texts in it."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            "media-src 'self' file: data:",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}" if script else "script-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def document(title: str, body: Markup, data: Any, name: str, *, script: bool = False) -> str:
    """Return a page that needs no other file.

    Parameters
    ----------
    title : str
    body : Markup
        What stands in `<main>`.
    data : object
        Written as JSON under the id `name`, and offered as a file.
    name : str
    script : bool
        Whether links with `data-at` make a player jump.
    """
    style, code = _part("style.css"), _part("jump.js") if script else None
    text = to_json(data)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy(style, code)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    # `</` and `<!--` inside a script element would end it.
    block = tag("script", Markup(text.replace("<", "\\u003c")), type="application/json", id=name)
    parts = [tag("main", body), _foot(text, name), block]
    if code:
        parts.append(tag("script", Markup(code)))
    page = tag("html", "\n", head, "\n", tag("body", join(parts, "\n")), "\n", lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _foot(text: str, name: str) -> Markup:
    encoded = base64.b64encode(text.encode("utf-8")).decode()
    link = tag(
        "a",
        "All values as JSON",
        href=f"data:application/json;base64,{encoded}",
        download=f"{name}.json",
    )
    return tag("footer", tag("p", "Written by OmniDrop. ", link, class_="muted"))


__all__ = ["document", "policy"]
