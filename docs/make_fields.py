"""Writes the table of fields in docs/batch.md from `omnidrop.batch.records.FIELDS`."""

from __future__ import annotations

from pathlib import Path

from omnidrop.batch.records import FIELDS, USUAL

PAGE = Path(__file__).parent / "batch.md"
BEGIN, END = "<!-- fields -->\n", "<!-- end of fields -->"


def table() -> str:
    """Return the table, with the usual fields marked."""
    rows = [
        f"| `{name}` | {about} | {'yes' if name in USUAL else ''} |"
        for name, (about, _) in FIELDS.items()
    ]
    return "\n".join(["| Field | | Usual |", "|---|---|---|", *rows]) + "\n"


def page(text: str) -> str:
    """Return the page with the table of now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
