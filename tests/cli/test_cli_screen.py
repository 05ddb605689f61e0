"""What follows an answer on a small screen, and several answers as a list."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import fakes
import pytest
from rich.cells import cell_len
from test_cli_report import answer, lines

from omnidrop.format import little
from omnidrop.report.trace import Answer, Choice, LeftOut, Moment, Used
from omnidrop_cli.commands.answering import Outcome, Question
from omnidrop_cli.files.stderr import Reporter
from omnidrop_cli.files.stdout import Printer
from omnidrop_cli.options.common import Report
from omnidrop_cli.terminal import answer as views
from omnidrop_cli.terminal import glyphs
from omnidrop_cli.terminal.listing import Listing
from omnidrop_cli.terminal.progress import Progress
from omnidrop_cli.terminal.sections import chosen_by
from omnidrop_cli.terminal.summary import how_sure

CALIBRATED = "calibrated on 600 questions of AVSynth"
NASTY = "\x1b[2J\x1b]0;title\x07[red]\r"


def full_answer(**changes) -> Answer:
    """Return an answer with everything that a summary can show."""
    given = replace(
        answer(notices=("The file ends at 0:58 of 1:00; the answer is about what is there.",)),
        text="piano",
        choices=(
            Choice("piano", 0.923, -0.4),
            Choice("violin", 0.052, -3.0),
            Choice("drums", 0.025, -4.0),
        ),
        probability=0.923,
        probability_source=CALIBRATED,
        choice_mass=0.83,
        unpruned_text=" piano",
    )
    return replace(given, **changes)


def with_trace(given: Answer, **changes) -> Answer:
    return replace(given, trace=replace(given.trace, **changes))


def test_the_summary_at_80_columns() -> None:
    assert lines(views.brief(full_answer()), 80) == [
        "",
        "  how sure  very, about 92 % among the choices",
        "  choices   piano 92 % · violin 5 % · drums 2 %",
        "  moments   0:22–0:30, 0:04–0:06",
        "  used      120 frames of video, 60.0 s of audio",
        "  check     same answer with every token: yes",
        "  cost      first token after 3.38 s, 30 % of tokens kept, 19.4 GB on the GPU",
        "  ! notice  The file ends at 0:58 of 1:00; the answer is about what is there.",
        "  more: --report full",
    ]


def test_notices_about_the_answer_come_before_those_about_the_model() -> None:
    demo = "This is the demo model: it knows only instruments. " * 3
    given = with_trace(full_answer(), notices=(demo, "None fits."), model={"demo": True})
    found = [line for line in lines(views.brief(given), 80) if "! notice" in line]
    assert found[0] == "  ! notice  None fits."


NONE_FITS = "None of the choices fits: together they have 0.001 % of the probability."


def test_choices_that_do_not_fit_are_not_called_sure() -> None:
    given = with_trace(full_answer(choice_mass=1e-5), notices=(NONE_FITS,))
    found = lines(views.brief(given), 80)
    assert "  how sure  hardly: none of the choices fits (together 0.001 %)" in found
    assert not any("very, " in line for line in found)
    assert not any("together they have" in line for line in found)
    row = Outcome(Question(Path("a.mp4"), "Who?"), answer=given)
    view = views.Layout(lambda width, ink: Listing(("Who?",)).rows(row, width))
    assert lines(view, 80)[1].split() == ["Who?", "→", "piano", "none", "fits"]


def test_a_proof_is_told_once() -> None:
    notice = "Evidence: without 0:04–0:06 the answer is 'violin', so it hangs on that moment."
    given = with_trace(full_answer(left_out=(left_out(4, "violin", True, 0.1),)), notices=(notice,))
    assert "Evidence" not in "\n".join(lines(views.brief(given), 80))
    assert "Evidence" in "\n".join(lines(views.brief(replace(given, left_out=())), 80))


def test_nothing_is_made_up_where_nothing_is_known() -> None:
    bare = with_trace(answer(), moments=(), used=Used())
    assert lines(views.brief(bare), 80) == [
        "",
        "  cost      first token after 3.38 s, 30 % of tokens kept, 19.4 GB on the GPU",
        "  more: --report full",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"probability_source": "the model's own"},
            "how sure  92 % among the choices by the model's own figure, not calibrated",
        ),
        ({"probability": 0.75}, "how sure  fairly, about 75 % among the choices"),
        ({"probability": 0.6}, "how sure  not very, about 60 % among the choices"),
        ({"probability": 0.31}, "how sure  hardly, about 31 % among the choices"),
        ({"probability": 1.0}, "how sure  very, over 99 % among the choices"),
        ({"probability": 0.0}, "how sure  hardly, under 1 % among the choices"),
        ({"unpruned_text": "violin"}, "same answer with every token: no, it is “violin”"),
        ({"unpruned_text": ""}, "same answer with every token: no, it is empty"),
    ],
)
def test_what_it_says(given, said) -> None:
    assert any(line.endswith(said) for line in lines(views.brief(full_answer(**given)), 80))


def left_out(start: float, text: str, changed: bool, probability: float) -> LeftOut:
    return LeftOut(Moment(start, start + 2, 0.1), text, changed, probability, 0.9)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((left_out(4, "violin", True, 0.1), left_out(8, "piano", False, 0.8)),
         "without 0:04–0:06 the answer is “violin”"),
        ((left_out(4, "piano", False, 0.09),),
         "without 0:04–0:06 the answer is the same and 10 % as probable"),
        ((left_out(4, "", True, 0.1),), "without 0:04–0:06 the answer is empty"),
        ((left_out(4, "piano", False, 0.8),), "the answer does not hang on this moment"),
        ((left_out(4, "piano", False, 0.8),) * 2,
         "the answer does not hang on one of these moments"),
    ],
)  # fmt: skip
def test_what_leaving_moments_out_showed(found, said) -> None:
    given = full_answer(left_out=found)
    assert f"  proof     {said}" in lines(views.brief(given), 80)
    whole = lines(views.full(given), 80)
    assert f"  proof     {said}" in whole
    assert sum(line.startswith("  without 0:0") for line in whole) == len(found)


@pytest.mark.parametrize(
    ("used", "tokens", "said"),
    [
        (Used(1, 0.5, 0.0), {}, "1 frame of video, no audio"),
        (Used(0, 0.0, 12.0), {}, "no video, 12.0 s of audio"),
        (Used(), {"audio_tokens": 0, "video_tokens": 0}, "no video, no audio"),
        (Used(1200, 600.0, 600.0), {}, "1,200 frames of video, 10 min 00 s of audio"),
    ],
)
def test_what_was_used(used, tokens, said) -> None:
    given = with_trace(full_answer(), used=used, **tokens)
    assert f"  used      {said}" in lines(views.brief(given), 80)


def test_all_tokens_kept() -> None:
    text = "\n".join(lines(views.brief(with_trace(full_answer(), realised_budget=1.0)), 80))
    assert "all tokens kept" in text
    text = "\n".join(lines(views.brief(with_trace(full_answer(), realised_budget=0.042)), 80))
    assert "4.2 % of tokens kept" in text


@pytest.mark.parametrize("count", [0, 1, 3, 12, 40])
@pytest.mark.parametrize("width", [80, 200])
def test_it_fits_a_small_screen(count, width) -> None:
    notices = tuple(
        f"Notice {i} says something that takes about a line here." for i in range(count)
    )
    many = tuple(Choice(f"choice number {i}", 1 / 30, -3.0) for i in range(30))
    moments = tuple(Moment(10.0 * i, 10.0 * i + 2, 0.05) for i in range(20))
    given = full_answer(choices=many)
    found = lines(views.brief(with_trace(given, notices=notices, moments=moments)), width)
    assert len(found) + 1 <= (12 if count == 0 else 14)  # the answer's own line is one
    shown = sum("! notice" in line for line in found)
    assert shown == count or f"{count - shown} notice" in found[-1]
    assert shown >= min(count, 1)
    assert any("and 16 more" in line for line in found)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_screen_or_hard_to_follow(width) -> None:
    given = full_answer(unpruned_text="Ein Klavier, und danach " * 8)
    found = lines(views.brief(given), width)
    assert max(cell_len(line) for line in found) <= min(width, 100)
    for part in ("very, about 92 %", "0:22–0:30", "120 frames"):
        assert part in "\n".join(found)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_wide_glyphs_are_measured_in_cells(width) -> None:
    names = ("最初に聞こえる楽器はピアノ", "ヴァイオリン", "太鼓")
    given = full_answer(
        text="ピアノ" * 30,
        choices=tuple(Choice(name, 0.3, -1.0) for name in names),
        unpruned_text="ヴァイオリン" * 20,
    )
    for view in (views.full(given, with_answer=True), views.brief(given, with_answer=True)):
        found = lines(view, width)
        assert max(cell_len(line) for line in found) <= width
    assert "最初に聞こえる楽器はピアノ30%" in "".join("".join(found).split())


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_in_an_answer_steers_the_terminal(width) -> None:
    given = full_answer(
        text=NASTY,
        question=NASTY,
        choices=(Choice(NASTY, 0.9, -0.1), Choice("b", 0.1, -2.0)),
        unpruned_text=NASTY + "x",
    )
    given = with_trace(given, notices=(NASTY,))
    listing = Listing((NASTY,))
    row = Outcome(Question(Path(f"{NASTY}.mp4"), NASTY), answer=given)
    for view in (
        views.brief(given, with_answer=True),
        views.full(given, with_answer=True, again=True, settings=True),
        views.Layout(lambda width, ink: listing.rows(row, width)),
    ):
        text = "\n".join(lines(view, width))
        assert not set(text) & {"\x1b", "\x07", "\r"}
        assert "\\x1b" in text
        assert "[red]" in text


@pytest.mark.parametrize("colours", [None, "standard", "256", "truecolor"])
def test_colour_only_where_there_is_colour(colours) -> None:
    for view in (views.brief(full_answer()), views.full(full_answer())):
        text = "\n".join(lines(view, 80, colours))
        assert ("\x1b[" in text) == (colours is not None)
        if colours == "256":
            assert "38;2;" not in text
            assert "48;2;" not in text


def test_256_colours_have_a_ramp_of_rising_lightness() -> None:
    steps = (0, 95, 135, 175, 215, 255)

    def lightness(index: int) -> float:
        places = (index - 16) // 36, (index - 16) // 6 % 6, (index - 16) % 6
        linear = [(steps[p] / 255) ** 2.2 for p in places]
        return (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]) ** (1 / 3)

    ink = glyphs.Ink(colour=True, shades=True, numbered=True)
    ramp = [ink.shade((i + 0.5) / 8) for i in range(8)]
    seen = [lightness(int(name.removeprefix("color(").rstrip(")"))) for name in ramp]
    assert all(b - a > 0.04 for a, b in pairwise(seen))
    assert ink.shade(-1.0) == ramp[0]
    assert ink.shade(2.0) == ramp[-1]


ROWS = """\
concert.mp4
  What instrument plays first?          → piano                        92 % sure
  How many instruments play at the      → three of them, and           61 % sure
  same time at the end of the clip?       later a fourth one
                                          joins in from the left
  What?                                 → no answer

other.mp4
  What?                                 → 音楽                    over 99 % sure
    same answer with every token: no, it is “ピアノ”
"""


def outcomes() -> list[Outcome]:
    given = replace(answer(), probability_source=CALIBRATED)

    def one(clip: str, question: str, text: str | None, sure: float = 0.0, **more) -> Outcome:
        asked = Question(Path(clip), question)
        if text is None:
            return Outcome(asked, problem=RuntimeError("no"))
        return Outcome(asked, answer=replace(given, text=text, probability=sure, **more))

    several = "three of them, and later a fourth one joins in from the left"
    long = "How many instruments play at the same time at the end of the clip?"
    return [
        one("concert.mp4", "What instrument plays first?", "piano", 0.923),
        one("concert.mp4", long, several, 0.61),
        one("concert.mp4", "What?", None),
        one("other.mp4", "What?", "音楽", 0.999, unpruned_text="ピアノ"),
    ]


def listed(width: int, sure: bool = True) -> str:
    listing = Listing([o.question.text for o in outcomes()], sure)
    return "".join(
        line + "\n"
        for outcome in outcomes()
        for line in lines(views.Layout(lambda w, ink, o=outcome: listing.rows(o, w)), width)
    )


def test_a_list_at_80_columns() -> None:
    assert listed(80) == ROWS


@pytest.mark.parametrize("width", [40, 59, 60, 80, 200])
def test_a_list_fits_and_says_the_same_at_any_width(width) -> None:
    text = listed(width)
    assert max(cell_len(line) for line in text.splitlines()) <= min(width, 100)
    said = " ".join(text.split())
    for part in ("concert.mp4", "→ piano", "92 % sure", "over 99 % sure", "音楽"):
        assert part in said
    assert text.count("concert.mp4") == 1
    if width == 200:
        assert len(text.splitlines()) == len(ROWS.splitlines()) - 1


def test_a_list_without_how_sure() -> None:
    assert " sure" not in listed(80, sure=False)


def test_a_list_ends_with_what_it_cost() -> None:
    listing = Listing(["What?"])
    found = replace(answer(), probability=0.5, probability_source="the model's own")
    slow = with_trace(found, ttft=12.4, realised_budget=0.5)
    for given in (slow, found):
        list(listing.rows(Outcome(Question(Path("a.mp4"), "What?"), answer=given), 80))
    view = views.Layout(lambda width, ink: listing.closing(["Demo."], width))
    assert lines(view, 80) == [
        "",
        "  cost      first token after 3.38 to 12.4 s, 30 to 50 % of tokens kept,",
        "            19.4 GB on the GPU",
        "  how sure  by the model's own figure, not calibrated",
        "  ! notice  Demo.",
        "  more: --report full",
    ]


def test_the_full_report_says_more() -> None:
    text = "\n".join(lines(views.full(full_answer(), again=True), 80))
    for part in (
        f"very, about 92 % among the choices ({CALIBRATED})",
        "Moments that the answer came from",
        "71.0 %",
        "same answer with every token: yes",
        "budget: share of",
        "prefill: reading",
        "KV cache: what",
    ):
        assert part in " ".join(text.split())
    assert "Settings" not in text
    empty = with_trace(full_answer(), moments=())
    assert "Moments" not in "\n".join(lines(views.full(empty), 80))


def test_saved_reports_hold_no_settings_and_the_answer(run, fake, clip, tmp_path) -> None:
    for suffix in ("txt", "svg"):
        path = tmp_path / f"r.{suffix}"
        assert run("ask", clip, "What?", "--save", path)[0] == 0
        text = path.read_text("utf-8")
        assert "max_new_tokens" not in text
        assert "KV cache" in text
        assert fakes.TEXT in text


def reported(capsys, kind: Report | None, form: str, *, quiet: bool = False, several: bool = False):
    """Return what stderr gets for a checked answer whose stdout is a pipe."""
    questions = ("What?", "Who?")[: 1 + several]
    printer = Printer(form, not several, Progress(False), questions, live=False)
    reporter = Reporter(kind, quiet, printer, several_clips=False)
    for text in questions:
        reporter.show(Outcome(Question(Path("a.mp4"), text), answer=full_answer(question=text)))
    reporter.close()
    return capsys.readouterr().err


def test_the_check_was_asked_for_so_it_is_said_even_in_a_pipe(capsys) -> None:
    said = "same answer with every token: yes"
    assert reported(capsys, None, "text") == f"omnidrop: check: {said}\n"
    assert f"a.mp4: Who?: {said}" in reported(capsys, None, "text", several=True)
    assert reported(capsys, None, "json") == ""
    assert reported(capsys, None, "text", quiet=True) == ""
    assert said in reported(capsys, Report.brief, "json")


def test_a_list_on_stderr_beside_json(capsys) -> None:
    found = reported(capsys, Report.brief, "json", several=True).splitlines()
    assert found[0] == "a.mp4"
    assert found[1].split() == ["What?", "→", "piano", "92", "%", "sure"]
    assert sum("The file ends" in line for line in found) == 1
    assert found[-1] == "  more: --report full"


def test_an_answer_without_a_word(capsys) -> None:
    printer = Printer("text", True, Progress(False), ("What?",), live=True)
    printer.put(Outcome(Question(Path("a.mp4"), "What?"), answer=full_answer(text=" ")))
    assert capsys.readouterr().out == "(nothing)\n"


def test_a_list_in_which_some_keep_every_token() -> None:
    listing = Listing(["What?"])
    for kept in (0.3, 1.0):
        given = with_trace(answer(), realised_budget=kept)
        list(listing.rows(Outcome(Question(Path("a.mp4"), "What?"), answer=given), 80))
    said = lines(views.Layout(lambda width, ink: listing.closing([], width)), 80)
    assert "30 to 100 % of tokens kept" in " ".join(said)


def test_a_default_that_dropped_nothing_claims_no_measurement() -> None:
    default = {"method": "seats", "budget": 0.3, "source": "measured here", "saving": 0.09}
    trace = answer().trace
    kept = replace(trace, method={"name": "none", "budget": 1.0, "default": default})
    said = "the model's default, which is seats at 30 % where that saves enough time"
    assert chosen_by(kept) == said
    dropped = replace(trace, method={"name": "seats", "budget": 0.3, "default": default})
    assert chosen_by(dropped) == "the model's default: measured here"
    assert chosen_by(replace(trace, method={"name": "seats"})) == ""


# What is not known, and what is said already


SILENT = "the question asks about sound, and there is none"


def test_no_figure_stands_beside_an_answer_that_nothing_was_measured_for() -> None:
    given = full_answer(choices=(), choice_mass=None, probability=None, doubt=SILENT)
    notices = ("The clip has no audio.", "The question asks about sound, and there is none.", "So.")
    given = with_trace(given, notices=notices, used=Used(14, 7.0, 0.0))
    shown = lines(views.brief(given), 80)
    assert f"  how sure  not known: {SILENT}" in shown
    assert "  used      14 frames of video, no audio" in shown
    assert [line for line in shown if "notice" in line] == ["  ! notice  So."]
    assert how_sure(given) == "not known"


def test_choices_that_do_not_fit_have_their_share_of_all_answers() -> None:
    notice = "None of the choices fits: together they have 0.0031 % of the probability."
    given = with_trace(full_answer(choice_mass=3.1e-5, doubt="x"), notices=(notice,))
    shown = lines(views.brief(given), 80)
    assert "  how sure  hardly: none of the choices fits (together 0.003 %)" in shown
    assert not [line for line in shown if "! notice" in line]
    assert how_sure(given) == "none fits"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "50 %"), (0.009, "0.9 %"), (2e-5, "0.002 %"), (3e-7, "0.00003 %"), (0.0, "0 %"),
     (1e-9, "under 0.00001 %")],
)  # fmt: skip
def test_little_shares_have_no_exponent(value: float, text: str) -> None:
    assert little(value) == text
