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


def document(
    title: str,
    body: Markup,
    data: Any,
    name: str,
    *,
    script: str = "",
    style: str = "",
    offer: bool = True,
) -> str:
    """Return a page that needs no other file.

    Parameters
    ----------
    title : str
    body : Markup
        What stands in `<main>`.
    data : object
        Written as JSON under the id `name`.
    name : str
    script : str
        File of this package with the page's script: `jump.js` lets links with `data-at` move a
        player.
    style : str
        File with rules besides those of every page.
    offer : bool
        Offer the data as a file too, which makes the page more than twice as large.
    """
    rules, code = _part("style.css"), _part(script) if script else None
    rules += f"\n{_part(style)}" if style else ""
    text = to_json(data)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy(rules, code)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(rules)),
    )
    # `</` and `<!--` inside a script element would end it.
    block = tag("script", Markup(text.replace("<", "\\u003c")), type="application/json", id=name)
    main = tag("main", body, class_="wide" if style else None)
    parts = [main, _foot(text, name) if offer else _foot(), block]
    if code:
        parts.append(tag("script", Markup(code)))
    page = tag("html", "\n", head, "\n", tag("body", join(parts, "\n")), "\n", lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _foot(text: str = "", name: str = "") -> Markup:
    if not name:
        return tag("footer", tag("p", "Written by OmniDrop.", class_="muted"))
    encoded = base64.b64encode(text.encode("utf-8")).decode()
    link = tag(
        "a",
        "All values as JSON",
        href=f"data:application/json;base64,{encoded}",
        download=f"{name}.json",
    )
    return tag("footer", tag("p", "Written by OmniDrop. ", link, class_="muted"))


__all__ = ["document", "policy"]
