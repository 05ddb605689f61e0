"""Writes the tables of docs/scale.md from measured rates; a test checks that the page is current.

python docs/make_scale.py             # writes docs/scale.md
python docs/make_scale.py --stdout    # prints it

Measured: seconds to the first token and per token on one card
(`benchmarks/results/h200/first-token-and-decoding.json`), and processor seconds of reading a minute
of 1080p30 (`benchmarks/results/avx2/decoding_60.txt`). All else is arithmetic on these.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from omnidrop import format as fmt

DOCS = Path(__file__).parent
PAGE = DOCS / "scale.md"
RESULTS = DOCS.parent / "benchmarks" / "results"
BEGIN, END = "<!-- made by make_scale.py -->", "<!-- end -->"

CLIPS = 1_000_000
#: Tokens of an answer.
ANSWER = 16
CARDS = (1, 8, 64, 512)
METHODS = {
    "none": "every token",
    "omnidrop 20%": "omnidrop, 20 %",
    "omnidrop 10%": "omnidrop, 10 %",
}


def rates() -> dict[str, dict[str, float]]:
    """Return what was measured of each method: ttft and per_token, in seconds."""
    found = json.loads((RESULTS / "h200" / "first-token-and-decoding.json").read_text("utf-8"))
    rows: list[dict[str, Any]] = found["rows"]
    first = {row["name"]: row["ttft"] for row in rows if row["part"] == "ttft"}
    after = {row["name"]: row["ms"] / 1000 for row in rows if row["part"] == "decoding"}
    return {name: {"ttft": first[name], "per_token": after[name]} for name in METHODS}


def reading() -> float:
    """Return processor seconds of reading a minute of 1080p30 at two frames a second."""
    text = (RESULTS / "avx2" / "decoding_60.txt").read_text("utf-8")
    measured = json.loads(text[text.index("{") :])
    seconds: float = measured["60s"]["processor"]["omnidrop"]
    return seconds


def seconds_of(rate: dict[str, float]) -> float:
    """Return a card's seconds for a clip: the first token, and those after it."""
    return rate["ttft"] + (ANSWER - 1) * rate["per_token"]


def tables() -> str:
    """Return the tables."""
    found, read = rates(), reading()
    lines = [
        "| | first token, s (measured) | a token after it, ms (measured) | "
        f"a clip, {ANSWER} tokens, s | clips an hour and card | cores that read for a card |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, shown in METHODS.items():
        clip = seconds_of(found[name])
        lines.append(
            f"| {shown} | {found[name]['ttft']:.3f} | {1000 * found[name]['per_token']:.1f} | "
            f"{clip:.3f} | {3600 / clip:,.0f} | {read / clip:.0f} |"
        )
    lines += [
        "",
        "| 1 M clips | "
        + " | ".join(f"{n} card{'s' * (n > 1)}" for n in CARDS)
        + " | card hours |",
        "|---|" + "---:|" * (len(CARDS) + 1),
    ]
    for name, shown in METHODS.items():
        whole = CLIPS * seconds_of(found[name])
        times = " | ".join(fmt.duration(whole / cards) for cards in CARDS)
        lines.append(f"| {shown} | {times} | {whole / 3600:,.0f} |")
    hours = CLIPS * read / 3600
    cores = " | ".join(f"{CLIPS * read / (3600 * 24 * n):,.0f}" for n in (1, 7))
    lines += [
        "",
        "| reading 1 M clips | core hours | cores for a day | cores for a week |",
        "|---|---:|---:|---:|",
        f"| {read:.2f} processor seconds a clip (measured) | {hours:,.0f} | {cores} |",
    ]
    fast = seconds_of(found["omnidrop 20%"])
    lines += [
        "",
        "Reading is the greater part: at 20 % a card is done with a clip in the time in which a core "
        f"reads 1/{read / fast:.0f} of one.",
    ]
    return "\n".join(lines)


def page() -> str:
    """Return docs/scale.md with its tables made anew."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    if "--stdout" in sys.argv:
        print(page(), end="")
    else:
        PAGE.write_text(page(), encoding="utf-8")
