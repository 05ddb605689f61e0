"""The page about many answers: figures by settings, causes, and rows that can be searched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from omnidrop import format as fmt
from omnidrop.errors import printable
from omnidrop.evaluation.report.overview import group_numbers
from omnidrop.evaluation.report.rows import ANSWERED, FAILED, REFUSED
from omnidrop_cli.page.charts import path as shape
from omnidrop_cli.page.charts import stretched
from omnidrop_cli.page.details import facts
from omnidrop_cli.page.frame import document
from omnidrop_cli.page.html import Markup, folded, join, shortened, shown, table, tag
from omnidrop_cli.terminal.overview import damage

if TYPE_CHECKING:
    from omnidrop.evaluation.report.collection import Collection
    from omnidrop.evaluation.report.overview import GroupFigures, Overview, Spread

#: Rows that a page holds. Of more, it holds those that failed, were slowest and least sure.
MOST_ROWS = 20_000
#: Rows that can be read without a script.
FIRST = 50
#: Characters of a text in a row.
LONGEST = 600
COLUMNS = (
    "id",
    "clip",
    "question",
    "answer",
    "status",
    "error",
    "cause",
    "expected",
    "right",
    "category",
    "group",
    "probability",
    "asked",
    "kept",
    "seconds",
    "along",
    "page",
)
ORDERS = (
    ("", "as in the file"),
    ("-seconds", "slowest first"),
    ("seconds", "fastest first"),
    ("probability", "least sure first"),
    ("-probability", "surest first"),
    ("kept", "least kept first"),
    ("-kept", "most kept first"),
    ("clip", "by clip"),
    ("question", "by question"),
    ("answer", "by answer"),
)


def overview_page(
    found: Collection,
    told: Overview,
    numbers: Sequence[int],
    chosen: str,
    target: Path,
    links: Mapping[int, Path],
) -> str:
    """Return the page.

    Parameters
    ----------
    found : Collection
    told : Overview
    numbers : sequence of int
        Rows that are shown, in their order.
    chosen : str
        The selection in words; empty if every row is shown.
    target : Path
        Where the page will be: links are relative to it.
    links : mapping
        From the number of a row to the page of its clip.
    """
    held = held_rows(found, numbers)
    groups = group_numbers(found)
    rows = [
        _cells(found, number, groups[found.group[number]], _address(links.get(number), target))
        for number in held
    ]
    data = told.to_dict()
    data["files"] = [str(path) for path in found.files]
    data["page"] = {"columns": COLUMNS, "rows": rows, "groups": [g.name for g in told.groups]}
    name = ", ".join(printable(path.name) for path in found.files[:3])
    body = [
        _head(found, told, chosen),
        _by_settings(told.groups),
        _spreads(told.groups),
        _causes(found, told),
        _rows(found, told, rows, len(numbers)),
    ]
    return document(
        f"{name} · omnidrop report",
        join([part for part in body if part], "\n"),
        data,
        "report",
        script="rows.js",
        style="rows.css",
        offer=False,
    )


def held_rows(found: Collection, numbers: Sequence[int], most: int = MOST_ROWS) -> list[int]:
    """Return the rows that a page holds, in the order given.

    Of more than `most`, all that failed go first, up to half of them; then the slowest and the
    least sure by turns.
    """
    if len(numbers) <= most:
        return list(numbers)
    taken = dict.fromkeys(found.failed(numbers)[: most // 2])
    slow, unsure = found.slowest(numbers, most), found.least_sure(numbers, most)
    rest = [i for i in numbers if not found.answered(i)]
    for i in range(most):
        for part in (slow, unsure, rest):
            if i < len(part) and len(taken) < most:
                taken[part[i]] = None
    for number in numbers:
        if len(taken) >= most:
            break
        taken[number] = None
    return [number for number in numbers if number in taken]


def _address(page: Path | None, target: Path) -> str:
    """Return a page's address as a link from `target`; empty without a page."""
    if page is None:
        return ""
    here, folder = Path(os.path.abspath(page)), Path(os.path.abspath(target.parent))
    try:
        return quote(os.fsencode(Path(os.path.relpath(here, folder)).as_posix()), safe="/")
    except ValueError:  # on another drive
        return here.as_uri()


def _cells(found: Collection, number: int, group: int, page: str) -> list[Any]:
    row = found.row(number)
    along = [None if share is None else round(100 * share) for share in found.along_of(number)]
    values = {
        **{name: shortened(shown(getattr(row, name)), LONGEST) for name in _TEXTS},
        "status": row.status,
        "cause": found.cause[number],
        "right": None if row.right is None else int(row.right),
        "group": group,
        "probability": _rounded(row.probability),
        "asked": _rounded(row.asked),
        "kept": _rounded(row.kept),
        "seconds": _rounded(row.seconds),
        "along": along or None,
        "page": page,
    }
    return [values[name] for name in COLUMNS]


_TEXTS = ("id", "clip", "question", "answer", "error", "expected", "category")


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _head(found: Collection, told: Overview, chosen: str) -> Markup:
    names = ", ".join(printable(path.name) for path in found.files[:5])
    more = f" and {len(found.files) - 5} more" if len(found.files) > 5 else ""
    parts: list[Markup] = [tag("h1", names + more, dir="auto")]
    if chosen:
        left = f" {fmt.number(told.left_out)} rows are left out."
        parts.append(tag("p", f"Only rows with: {chosen}.{left}", class_="muted"))
    notes = [tag("li", text) for text in damage(found)]
    if notes:
        parts.append(tag("aside", tag("ul", *notes), class_="notices", role="note"))
    rows: list[tuple[str, object]] = [
        ("Rows", fmt.number(told.rows)),
        ("Clips", fmt.number(told.clips)),
        ("Answered", fmt.number(told.answered)),
        ("Failed", _link(fmt.number(told.failed), "status", FAILED) if told.failed else "0"),
    ]
    if told.refused:
        rows.append(("Refused", _link(fmt.number(told.refused), "status", REFUSED)))
    if len(told.groups) > 1:
        rows.append(("Settings", fmt.number(len(told.groups))))
    return tag("header", *parts, facts(rows))


def _link(text: object, field: str, value: object) -> Markup:
    """Return a link to the rows that chooses some of them."""
    return tag("a", text, href="#rows", data_choose=field, data_value=value)


def _by_settings(groups: Sequence[GroupFigures]) -> Markup:
    judged = any(group.judged for group in groups)
    head = ["settings", "rows", "failed"] + (["right"] if judged else [])
    head += ["asked", "kept, mean", "least to most", "sure, median"]
    head += ["time, median", "a tenth over", "slowest"]
    rows = []
    for group in groups:
        name = [f"{group.number}  {group.name}" if len(groups) > 1 else group.name]
        if group.other:
            text = ", ".join(f"{k} {fmt.setting(v)}" for k, v in group.other.items())
            name += [tag("br"), tag("small", text)]
        row: list[object] = [join(name), _link(fmt.number(group.rows), "group", group.number)]
        row.append(fmt.number(group.failed + group.refused))
        if judged:
            row.append(fmt.share(group.right / group.judged) if group.judged else "–")
        row.append(fmt.share(group.asked) if group.asked is not None else "–")
        kept, time = group.kept, group.seconds
        row += (
            [fmt.share(kept.mean), f"{fmt.share(kept.least)} to {fmt.share(kept.most)}"]
            if kept
            else ["–", "–"]
        )
        row.append(fmt.share(group.probability.median, 0) if group.probability else "–")
        row += (
            [fmt.duration(value) for value in (time.median, time.high, time.most)]
            if time
            else ["–"] * 3
        )
        rows.append(row)
    caption = "Rows of different settings are not mixed."
    return join(
        (
            tag("h2", "By settings"),
            table(head, rows, caption=caption, kind="numbers by-settings"),
        )
    )


def _spreads(groups: Sequence[GroupFigures]) -> Markup:
    """Return the charts of each group: along the clips, budgets, times and probabilities."""
    parts = []
    for group in groups:
        charts = [
            _along_chart(group.along),
            _chart("Tokens kept", group.kept, fmt.share),
            _chart("Time", group.seconds, fmt.duration),
            _chart("How sure", group.probability, lambda value: fmt.share(value, 0)),
        ]
        made = [chart for chart in charts if chart]
        if made:
            name = f"{group.number}  {group.name}" if len(groups) > 1 else "How the rows differ"
            parts.append(tag("section", tag("h3", name), tag("div", *made, class_="spreads")))
    if not parts:
        return Markup("")
    return parts[0] if len(parts) == 1 else folded("Charts of each settings", *parts)


def _chart(name: str, spread: Spread | None, say: Any) -> Markup | None:
    if spread is None or say(spread.least) == say(spread.most):
        return None
    top = max(spread.bars)
    boxes = [(x, 1 - n / top, 0.9, n / top) for x, n in enumerate(spread.bars) if n]
    label = f"{name}: {say(spread.least)} to {say(spread.most)}, median {say(spread.median)}"
    return _figure(name, boxes, len(spread.bars), label, say(spread.least), say(spread.most))


def _along_chart(along: Sequence[float | None]) -> Markup | None:
    known = [share for share in along if share is not None]
    if not known:
        return None
    top = max(known) or 1.0
    boxes = [(x, 1 - s / top, 1, s / top) for x, s in enumerate(along) if s]
    label = f"Share of tokens kept along the clips: {fmt.share(min(known))} to {fmt.share(top)}"
    name = f"Kept along the clips, {fmt.share(top, 0)} at most"
    return _figure(name, boxes, len(along), label, "start", "end")


def _figure(
    name: str,
    boxes: Sequence[tuple[float, float, float, float]],
    width: int,
    label: str,
    left: str,
    right: str,
) -> Markup:
    track = tag("rect", class_="track", width="100%", height="100%")
    drawn = shape("video", boxes)
    chart = stretched(width, 1, *([track, drawn] if drawn else [track]), label=label, tall=44)
    ends = tag("div", tag("span", left), tag("span", right), class_="ends muted small")
    return tag("figure", tag("figcaption", name), Markup(chart.replace("cells", "spread")), ends)


def _causes(found: Collection, told: Overview) -> Markup:
    if not told.causes:
        return Markup("")
    rows = [
        (
            _link(fmt.number(cause.count), "cause", found.cause[cause.example]),
            fmt.number(cause.clips),
            cause.text,
        )
        for cause in told.causes[:100]
    ]
    more = len(told.causes) - len(rows)
    caption = "Why rows have no answer" + (f"; {more} more causes are not listed" if more else "")
    return join(
        (
            tag("h2", "Failed"),
            table(("rows", "clips", "cause"), rows, caption=caption, kind="causes"),
        )
    )


def _rows(found: Collection, told: Overview, rows: Sequence[list[Any]], whole: int) -> Markup:
    several = len(told.groups) > 1
    head = ["clip", "question", "answer"] + (["settings"] if several else [])
    plain = len(head) - several
    names = [tag("th", name, scope="col") for name in head[:plain]]
    for name in (*head[plain:], "sure", "kept", "time"):
        names.append(tag("th", name, scope="col", class_="number"))
    body = [_static(dict(zip(COLUMNS, row, strict=True)), several) for row in rows[:FIRST]]
    answers = tag(
        "table",
        tag("thead", tag("tr", *names)),
        tag("tbody", *body, id="rows-body"),
        class_="answers",
        aria_label="Rows",
    )
    said = f"{fmt.number(len(rows))} rows."
    if len(rows) < whole:
        said = (
            f"The page holds {fmt.number(len(rows))} of {fmt.number(whole)} rows: failed ones, the "
            "slowest and the least sure. The figures above are of all. For other rows, give "
            "omnidrop report a condition."
        )
    elif len(rows) > FIRST:
        said += f" Without scripts, the first {FIRST} are shown."
    turn = tag(
        "div",
        tag("button", "Back", type="button", id="back"),
        tag("button", "Next", type="button", id="next"),
        class_="turn",
        id="turn",
        hidden=True,
    )
    return tag(
        "section",
        tag("h2", "Rows"),
        tag("p", said, class_="muted small"),
        _form(found, told),
        tag("p", id="count", role="status", class_="muted", aria_live="polite"),
        tag("div", answers, class_="scroll", tabindex="0", role="region", aria_label="Rows"),
        turn,
        id="rows",
    )


def _form(found: Collection, told: Overview) -> Markup:
    def options(pairs: Iterable[tuple[object, str]]) -> list[Markup]:
        return [tag("option", shortened(text, 80), value=value) for value, text in pairs]

    def select(name: str, label: str, pairs: Iterable[tuple[object, str]]) -> Markup:
        return tag("label", label, tag("select", *options(pairs), name=name))

    def field(name: str, label: str, mode: str, style: str = "") -> Markup:
        box = tag("input", name=name, inputmode=mode, autocomplete="off")
        return tag("label", label, box, class_=style or None)

    statuses = [("", "any"), (ANSWERED, "answered"), (FAILED, "failed")]
    statuses += [(REFUSED, "refused")] if told.refused else []
    groups = [("", "any"), *((g.number, f"{g.number}  {g.name}") for g in told.groups)]
    causes = [("", "any"), *((found.cause[c.example], c.text) for c in told.causes[:100])]
    return tag(
        "form",
        field("words", "Words in clip, question, answer or error", "search", "words"),
        select("status", "Outcome", statuses),
        select("group", "Settings", groups),
        select("cause", "Cause", causes),
        field("slower", "At least seconds", "decimal"),
        field("surer", "At most sure, in %", "decimal"),
        select("sort", "Order", ORDERS),
        tag("button", "Clear", type="reset"),
        class_="choose",
        id="choose",
        hidden=True,
        aria_label="Choose rows",
    )


def _static(row: Mapping[str, Any], several: bool) -> Markup:
    """Return a row as the script would make it."""
    name = row["clip"].replace("\\", "/").rpartition("/")[2] or "–"
    clip = tag("a", name, href=row["page"]) if row["page"] else tag("span", name)
    if row["status"] == ANSWERED:
        answer: list[object] = [tag("strong", row["answer"].strip() or "no words")]
    else:
        answer = [tag("span", f"{row['status']}: ", class_="muted")]
        answer.append(tag("span", row["error"], class_="failed"))
    if row["expected"] and row["right"] != 1:
        answer.append(tag("small", f" expected {row['expected']}"))
    seconds = row["seconds"]
    cells = [("question", row["question"], None), ("answer", join(answer), "said")]
    cells += [("settings", row["group"], "number")] if several else []
    cells += [
        ("sure", fmt.share(row["probability"], 0), "number"),
        ("kept", fmt.share(row["kept"]), "number"),
        ("time", "–" if seconds is None else fmt.duration(seconds), "number"),
    ]
    made = (
        tag("td", value, class_=style, data_label=label, dir=None if style == "number" else "auto")
        for label, value, style in cells
    )
    return tag("tr", tag("th", clip, scope="row"), *made)


__all__ = ["MOST_ROWS", "held_rows", "overview_page"]
