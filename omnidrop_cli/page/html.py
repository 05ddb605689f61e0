"""HTML from nested calls, in which every text is escaped unless it is `Markup` already."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable

from omnidrop.files import plain

#: Characters without a glyph that writing needs: joiners of scripts and emoji, soft hyphens.
_NEEDED = "\n\t\u200c\u200d\u00ad"
_VOID = {"br", "hr", "img", "input", "meta"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def shown(value: object) -> str:
    """Return text in which every character can be seen.

    Control characters, and those that turn the direction of text around, are written as escapes
    like `\\x1b` and `\\u202e`: a name cannot look like another one.
    """
    text = plain(str(value)).replace("\r\n", "\n")
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in _NEEDED
        else c
        for c in text
    )


def shortened(text: str, most: int) -> str:
    """Return a text, cut after `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def escaped(value: object) -> Markup:
    """Return a text as HTML; `Markup` as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(shown(value)))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Return parts one behind the other, those that are not `Markup` escaped."""
    return Markup(str(escaped(between)).join(escaped(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Parameters
    ----------
    name : str
    *children : object
        Markup, text to be escaped, or None for nothing.
    **attributes : object
        `class_` is `class`, and `aria_label` is `aria-label`. True is an attribute without a value;
        None and False leave it out.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escaped(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(c for c in children if c is not None)}</{name}>")


def table(
    head: Iterable[object],
    rows: Iterable[Iterable[object]],
    *,
    caption: object,
    kind: str = "numbers",
) -> Markup:
    """Return a table that scrolls inside its own box where it is wider than the page.

    Parameters
    ----------
    head : iterable
        Names of columns; the first is that of the rows' names.
    rows : iterable of iterable
        The first cell of each is its name.
    caption : object
    kind : str
        Classes: in "numbers" the cells but the first line up at the right.
    """
    names = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = []
    for row in rows:
        first, *rest = row
        body.append(tag("tr", tag("th", first, scope="row"), *(tag("td", c) for c in rest)))
    made = tag(
        "table",
        tag("thead", names),
        tag("tbody", *body),
        class_=kind or None,
        aria_label=caption,
    )
    # Above the box, so that it stays in sight when the table scrolls.
    said = tag("p", caption, class_="muted small")
    box = tag("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return join((said, box))


def folded(summary: object, *children: object) -> Markup:
    """Return content that is folded away behind its name."""
    return tag("details", tag("summary", summary), *children)


__all__ = ["Markup", "escaped", "folded", "join", "shortened", "shown", "table", "tag"]
