"""The report at any width, in any terminal, of any trace."""

from __future__ import annotations

import io
from dataclasses import replace

import fakes
import pytest
from rich.cells import cell_len
from rich.console import Console

from omnidrop import format as words
from omnidrop.report.trace import Answer, Choice
from omnidrop_cli.terminal import answer as views
from omnidrop_cli.terminal import glyphs as charts
from omnidrop_cli.terminal import sections as blocks

INKS = {"none": None, "16": "standard", "256": "256", "true": "truecolor"}


def answer(**shape) -> Answer:
    trace = fakes.make_trace(**shape)
    return Answer(fakes.TEXT, (1, 2, 3), "stop token", trace, trace.settings["question"])


def lines(view, width: int, colours: str | None = None) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=colours, force_terminal=bool(colours),
            legacy_windows=False).print(view)  # fmt: skip
    return stream.getvalue().splitlines()


SHAPES = {
    "usual": {},
    "one chunk": {"chunks": 1},
    "one hour": {"chunks": 1800},
    "deep": {"layers": 96},
    "one layer": {"layers": 1},
    "unpruned": {"budget": 1.0},
    "no sound": {"audio": 0},
    "no picture": {"video": 0},
    "text only": {"audio": 0, "video": 0, "chunks": 0},
    "not measured": {"relevance": False},
    "reused": {"reused": True},
    "long name": {"path": "a/very/long/folder/" * 12 + "clip.mp4", "question": "Why? " * 60},
    "wide glyphs": {"question": "最初に聞こえる楽器は何ですか？" * 8, "path": "音楽.mp4"},
    "markup": {"question": "[bold]Who[/bold] [red]\x1b[31m speaks\a?\nNow?", "notices": ("[x]",)},
}


@pytest.mark.parametrize(
    "width",
    [40, 80, 139, 200, *(pytest.param(width, marks=pytest.mark.slow) for width in (100, 140, 320))],
)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_no_line_is_too_wide(shape, width) -> None:
    for view in (views.full(answer(**shape), with_answer=True), views.brief(answer(**shape))):
        found = lines(view, width)
        assert max(cell_len(line) for line in found) <= width
        assert not any("\x1b" in line for line in found)


@pytest.mark.parametrize("colours", INKS.values(), ids=INKS)
@pytest.mark.parametrize("width", [80, 200])
def test_colours(colours, width) -> None:
    text = "\n".join(lines(views.full(answer()), width, colours))
    assert ("\x1b[" in text) == (colours is not None)
    # rich keeps a style's codes from the first colour system it met: 48;5; may stand for 48;2;.
    assert ("48;" in text) == (colours in ("256", "truecolor"))
    glyphs = set("▒▓")
    assert bool(glyphs & set(text)) == (colours in (None, "standard"))


def test_what_a_report_says() -> None:
    text = "\n".join(lines(views.full(answer(notices=("The file is cut.",)), settings=True), 100))
    for part in (
        "Qwen/Qwen2.5-Omni-7B", "28 layers", "bfloat16", "cuda:0", "budget 0.3 asked → 0.297",
        "! notice  The file is cut.", "1,500", "5,040", "0:22–0:30", "71.0 %", "vision tower",
        "    selection", "3.38 s", "29.2", "31.3 TFLOP of", "112 MB of", "2.91 GB host",
        "19.4 GB device", "p_final 0.2031", "max_new_tokens 128", "torch 2.13.0", "meanwhile",
        "120 frames of video, 60.0 s of audio", "prefill: reading the prompt",
        "120 frames of 448×252", "0:00", "1:00",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("loop", ["captured", "plain: the device is cpu", ""])
def test_how_tokens_were_made_is_said(loop) -> None:
    found = answer()
    found = replace(found, trace=replace(found.trace, decode_loop=loop))
    said = [line.split() for line in lines(views.full(found, settings=True), 100)]
    told = [words[1:] for words in said if words[:1] == ["decoding"]]
    assert told == ([loop.split()] if loop else [])


def test_loading_is_a_row_of_its_own() -> None:
    found = answer()
    assert not any(line.split()[:1] == ["load"] for line in lines(views.full(found), 100))
    loaded = replace(found, trace=replace(found.trace, load_seconds=3.25))
    row = next(line for line in lines(views.full(loaded), 100) if line.split()[:1] == ["load"])
    assert row.split()[1:3] == ["3.25", "s"]
    assert row.endswith("once, before the first question")
    assert loaded.to_dict()["trace"]["load_seconds"] == 3.25
    assert all(cell_len(line) <= 40 for line in lines(views.full(loaded), 40))


def test_reused_stages_say_so() -> None:
    text = "\n".join(lines(views.full(answer(reused=True)), 80))
    assert text.count("reused") == 6


def test_choices_are_shown_with_probabilities() -> None:
    given = replace(answer(), choices=(Choice("yes", 0.75, -1.0), Choice("no", 0.25, -2.0)))
    assert any("yes" in x and "75.0 %" in x for x in lines(views.full(given), 80))
    assert "  choices   yes 75 % · no 25 %" in lines(views.brief(given), 80)


def test_two_glyphs_tell_audio_from_video_without_colour() -> None:
    line = charts.stacked(0.25, 0.5, 40, charts.Ink(False, False)).plain
    assert line == "█" * 10 + "░" * 20 + " " * 10


@pytest.mark.parametrize("audio", [0.0, 0.001, 0.013, 0.2, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("video", [0.0, 0.001, 0.013, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("width", [1, 7, 46])
@pytest.mark.parametrize("colour", [True, False])
def test_stacked_bars_are_as_wide_as_asked(audio, video, width, colour) -> None:
    bar = charts.stacked(audio, video, width, charts.Ink(colour, colour))
    assert cell_len(bar.plain) == width
    if audio + video > 0:
        assert bar.plain.strip()


@pytest.mark.parametrize(("count", "most"), [(0, 5), (1, 5), (5, 5), (6, 5), (1800, 67), (97, 40)])
def test_bins_cover_everything_once(count, most) -> None:
    found = charts.bins(count, most)
    assert len(found) <= most
    assert [i for a, b in found for i in range(a, b)] == list(range(count))


def test_the_axis_says_where_each_time_is() -> None:
    spans = [(2.0 * i, 2.0 * i + 2) for i in range(30)]
    ticks, labels = (t.plain for t in charts.time_axis(spans, 2, 70))
    assert labels.split()[0] == "0:00"
    assert ticks.index("╵", 1) == labels.index("0:10") == 10


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (words.clock(65), "1:05"),
        (words.clock(3725), "1:02:05"),
        (words.clock(59.96, tenths=True), "1:00.0"),
        (words.span(1.5, 3.0), "0:01.5–0:03.0"),
        (words.duration(0.0042), "4.2 ms"),
        (words.duration(0.0996), "0.10 s"),
        (words.duration(125), "2 min 05 s"),
        (words.duration(3599), "59 min 59 s"),
        (words.duration(3720), "1 h 02 min"),
        (words.duration(3 * 86_400 + 4 * 3600), "3 days 4 h"),
        (words.duration(float("nan")), "–"),
        (words.size(999), "999 B"),
        (words.size(1_240_000_000), "1.24 GB"),
        (words.size(None), "–"),
        (words.flops(104.9e12), "105 TFLOP"),
        (words.flops(12), "12 FLOP"),
        (words.parameters(7_600_000_000), "7.60 B parameters"),
        (words.share(None), "–"),
        (words.setting(None), "–"),
        (words.setting(list(range(20))), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … (20)"),
        (words.setting({"a": True}), "a yes"),
    ],
)
def test_words(found, text) -> None:
    assert found == text


def test_ascii_terminals_get_look_alikes(run, fake, clip, monkeypatch) -> None:
    stderr = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stderr", stderr)
    assert run("ask", clip, "What?", "--report", "full")[0] == 0
    stderr.flush()
    said = stderr.buffer.getvalue().decode("ascii")
    assert "kept" in said
    assert "\\u" not in said


def test_the_label_of_a_field_is_dim_and_its_value_is_not() -> None:
    first, second = blocks.field("clip", "a value of several words that needs two lines", 40)
    console = Console()
    styles = {part.text.strip(): part.style for part in first.render(console)}
    assert styles["clip"].dim
    assert not styles["a value of several words"].dim
    assert [bool(part.style.dim) for part in second.render(console) if part.text.strip()] == [False]
    assert second.plain.strip() == "that needs two lines"
    note = blocks.field("answer", "piano", 40, "bold")[0].render(console)
    assert [bool(part.style.bold) for part in note if part.text.strip()] == [False, True]
