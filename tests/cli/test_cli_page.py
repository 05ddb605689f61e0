"""The page of answers: what it says, that nothing gets in or out, and how it fits a screen."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fakes import TEXT, make_trace
from pages import Page

from omnidrop.errors import MediaError, MemoryShortError
from omnidrop.report.trace import Answer, Choice, LeftOut, Moment, Used
from omnidrop.testing import media
from omnidrop_cli.commands.answering import Outcome, Question
from omnidrop_cli.files.answers import save
from omnidrop_cli.page import film
from omnidrop_cli.page.answer import percent

NASTY = '</script><script>alert("x")</script> & \x1b[31m\u202egnp.exe\u2069 "\' \x00'
MOMENTS = (Moment(2.0, 4.0, 0.7), Moment(5.0, 5.5, 0.2))


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.mp4(tmp_path_factory.mktemp("page") / "a clip #1 & 50%.mp4", seconds=6.0)


def outcome(
    clip: Path, text: str = "piano", question: str = "What plays?", **given: Any
) -> Outcome:
    """Return an answer about a clip of six seconds."""
    in_trace = {name: given.pop(name) for name in ("moments", "notices", "used") if name in given}
    shape = {name: given.pop(name) for name in ("video", "audio") if name in given}
    trace = replace(make_trace(question, path=str(clip), chunks=3, **shape), **in_trace)
    answer = Answer(text, (1, 2), "stop token", trace, question, **given)
    return Outcome(Question(clip, question), answer)


def saved(target: Path, *outcomes: Outcome, **given: Any) -> Page:
    save(target, list(outcomes), alone=len(outcomes) == 1, force=True, **given)
    return Page.read(target)


def full(clip: Path) -> Outcome:
    """Return an answer with every field filled."""
    return outcome(
        clip,
        moments=MOMENTS,
        notices=("A notice.",),
        used=Used(12, 6.0, 6.0),
        choices=(Choice("piano", 0.75, -9.0), Choice("drums", 0.25, -10.0)),
        probability=0.75,
        probability_source="calibrated on 600 questions",
        choice_mass=0.00001,
        unpruned_text="drums",
    )


def test_what_the_page_says(movie: Path, tmp_path: Path) -> None:
    page = saved(tmp_path / "r.html", full(movie))
    said = page.said()
    for part in ("What plays?", "piano", "75 % likely right", "calibrated on 600 questions",
                 "Same answer with every token: no", "drums", "None of them fits well", "0.001 %",
                 "A notice.", "0:02–0:04", "0:05.0–0:05.5", "70 %", "12 frames",
                 "6.00 s of audio", "First token after", "Tokens entering each layer",
                 "Peak memory, host", "vision tower", "Settings", "versions"):  # fmt: skip
        assert part in said, part
    order = [said.index(part) for part in ("What plays?", "75 %", "0:02–0:04", "What it cost")]
    assert order == sorted(order)
    assert page.tags.count("h1") == 1
    assert page.value()["text"] == "piano"
    assert all(image["alt"] for image in page.of("img"))
    assert len(page.of("img")) == 4  # three of two seconds, one of half a second
    assert page.of("html")[0]["lang"] == "en"


def test_what_is_not_known_is_not_claimed(movie: Path, tmp_path: Path) -> None:
    said = saved(tmp_path / "r.html", outcome(movie, text="", moments=())).said()
    assert "The model ended without a word." in said
    assert "How sure the model is was not measured." in said
    assert "Which moments it came from is not known." in said
    assert "likely right" not in said
    assert "same answer" not in said.lower()
    assert "evidence" not in said


def test_the_models_own_probability_is_not_called_calibrated(movie: Path, tmp_path: Path) -> None:
    made = outcome(movie, probability=0.999, probability_source="the model's own")
    said = saved(tmp_path / "r.html", made).said()
    assert "over 99 % probability of this answer" in said
    assert "not calibrated" in said
    assert "likely right" not in said
    same = outcome(movie, unpruned_text=" piano\n")
    assert "Same answer with every token: yes" in saved(tmp_path / "s.html", same).said()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100 %"), (0.9999, "over 99 %"), (0.874, "87 %"), (0.00001, "0.001 %"), (0.0, "0 %"),
     (1e-12, "under 0.00001 %")],
)  # fmt: skip
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text


def test_nothing_breaks_out(movie: Path, tmp_path: Path) -> None:
    clip = tmp_path / "<img src=x onerror=alert(1)> \u202e'\".mp4"
    clip.write_bytes(movie.read_bytes())
    hostile = outcome(clip, text=NASTY, question=NASTY, notices=(NASTY,), moments=MOMENTS,
                      choices=(Choice(NASTY, 1.0, -1.0),), unpruned_text=NASTY,
                      probability=0.5, probability_source=NASTY)  # fmt: skip
    other = Outcome(Question(clip, NASTY), problem=MemoryShortError(NASTY, hint=NASTY))
    target = tmp_path / "r.html"
    page = saved(target, hostile, other)
    text = target.read_text("utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", text.split("<script")[0])
    assert page.said().count("\\u202e") > 5
    assert page.tags.count("script") == 2
    assert page.value()["answers"][0]["text"] == NASTY


def test_the_policy_lets_nothing_in_but_what_is_there(movie: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    page = saved(target, full(movie))
    (policy,) = (m["content"] for m in page.of("meta") if m.get("http-equiv"))
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["media-src"] == "'self' file: data:"
    assert "unsafe" not in str(policy)
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (written,) = page.texts[tag]
        digest = base64.b64encode(hashlib.sha256(written.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    address = film.address(movie, target)
    for reference in page.references:
        assert reference.startswith(("data:image/jpeg;base64,", "data:application/json;base64,",
                                     address)), reference  # fmt: skip
    assert not re.search(r"https?:|url\(|@import", target.read_text("utf-8").split("<script")[0])
    link = next(a for a in page.of("a") if a.get("download"))
    assert json.loads(base64.b64decode(str(link["href"]).partition(",")[2])) == page.value()


def test_times_are_links_into_the_clip(movie: Path, tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    target = tmp_path / "reports" / "r.html"
    page = saved(target, full(movie))
    (video,) = page.of("video")
    source = str(video["src"])
    assert "#" not in source
    assert "%231%20%26%2050%25" in source
    assert (target.parent / unquote(source)).resolve() == movie.resolve()
    assert "controls" in video
    links = [a for a in page.of("a") if a.get("data-at")]
    assert [a["href"] for a in links] == [f"{source}#t=2.00,4.00", f"{source}#t=5.00,5.50"]
    assert {a["data-player"] for a in links} == {video["id"]}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text_still_leads_to_the_clip(movie: Path, tmp_path: Path) -> None:
    clip = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 \xff.mp4"))
    clip.write_bytes(movie.read_bytes())
    page = saved(tmp_path / "r.html", full(clip))
    (video,) = page.of("video")
    assert video["src"] == "caf%E9%20%FF.mp4"
    assert "caf\\udce9 \\udcff.mp4" in page.said()


def test_a_clip_that_browsers_do_not_play_is_shown_in_pictures(tmp_path: Path) -> None:
    clip = media.mkv(tmp_path / "film.mkv", seconds=6.0)
    told: list[str] = []
    page = saved(
        tmp_path / "r.html", outcome(clip, moments=MOMENTS), embed=True, notify=told.append
    )
    assert page.of("video") == []
    assert "Browsers do not play this clip" in page.said()
    assert len(page.of("img")) == 4 + film.OVERVIEW
    assert "0:02–0:04" in page.texts["span"]
    assert page.tags.count("script") == 1
    (notice,) = told
    assert "film.mkv" in notice


def test_sound_alone_gets_a_player(tmp_path: Path) -> None:
    clip = media.wav(tmp_path / "sound.wav", seconds=6.0)
    page = saved(tmp_path / "r.html", outcome(clip, video=0, moments=MOMENTS))
    (player,) = page.of("audio")
    assert player["src"] == "sound.wav"
    assert page.of("img") == []
    assert "no video" in page.said()


def test_a_clip_that_is_gone_leaves_a_page(tmp_path: Path) -> None:
    told: list[str] = []
    made = outcome(tmp_path / "gone.mp4", moments=MOMENTS)
    page = saved(tmp_path / "r.html", made, notify=told.append)
    assert "could not be read for this page" in page.said()
    assert page.of("video") == page.of("img") == []
    assert "gone.mp4" in told[0]


def test_a_clip_that_breaks_off_keeps_its_player(movie: Path, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object, **given: object) -> None:
        raise MediaError("It breaks off.", path=movie)

    monkeypatch.setattr("omnidrop.clip.stills.stills", fail)
    page = saved(tmp_path / "r.html", full(movie))
    assert len(page.of("video")) == 1
    assert "It breaks off." in page.said()
    assert "piano" in page.said()


def test_the_moment_that_the_answer_hangs_on(movie: Path, tmp_path: Path) -> None:
    left = (LeftOut(MOMENTS[0], "drums", True, 0.01, 0.9),
            LeftOut(MOMENTS[1], "piano", False, 0.8, 0.9))  # fmt: skip
    said = saved(tmp_path / "r.html", outcome(movie, moments=MOMENTS, left_out=left)).said()
    assert "The answer hangs on 0:02–0:04." in said
    assert "Without it: drums (90 % → 1 %)." in said
    assert "Without it: the same answer (90 % → 80 %)." in said
    same = (LeftOut(MOMENTS[0], "piano", False, 0.9, 0.9), left[1])
    none = saved(tmp_path / "s.html", outcome(movie, moments=MOMENTS, left_out=same)).said()
    assert "Whichever of these moments is left out, the answer stays the same." in none
    assert "Without it: the same answer, as probable." in none
    one = outcome(movie, moments=MOMENTS[:1], left_out=same[:1])
    assert "Whichever" not in saved(tmp_path / "o.html", one).said()


def test_a_page_says_nothing_twice(movie: Path, tmp_path: Path) -> None:
    made = outcome(
        movie, moments=MOMENTS, left_out=(LeftOut(MOMENTS[0], "drums", True, 0.01, 0.9),)
    )
    assert made.answer is not None
    missing = "The question asks about sound, and there is none."
    proof = "Evidence: without 0:02–0:04 the answer is 'drums', so it hangs on that moment."
    answer = replace(
        made.answer,
        probability=None,
        doubt="the question asks about sound, and there is none",
        trace=replace(made.answer.trace, notices=(missing, proof, "A <notice>.")),
    )
    said = saved(tmp_path / "r.html", replace(made, answer=answer)).said()
    assert said.count("asks about sound") == 1
    assert "How sure it is, is not known: the question asks about sound" in said
    assert "Evidence:" not in said
    assert "A <notice>." in said


def test_a_default_says_where_it_comes_from(movie: Path, tmp_path: Path) -> None:
    made = outcome(movie)
    assert made.answer is not None
    method = {"name": "uniform", "budget": 0.5, "default": {"source": "measured <here>"}}
    trace = replace(made.answer.trace, method=method)
    said = saved(
        tmp_path / "r.html", replace(made, answer=replace(made.answer, trace=trace))
    ).said()
    assert "the model's default: measured <here>" in said
    assert "all " not in said.split("Kept")[1][:30]


@pytest.mark.slow
def test_a_long_clip_stays_readable(tab, movie: Path, tmp_path: Path) -> None:
    made = outcome(movie)
    assert made.answer is not None
    trace = make_trace("Why?", path=str(movie), chunks=1800, layers=48)
    page = saved(tmp_path / "r.html", replace(made, answer=replace(made.answer, trace=trace)))
    assert page.tags.count("tr") < 400
    assert (tmp_path / "r.html").stat().st_size < 3_000_000
    tab.open(tmp_path / "r.html", 390)
    words = "[...document.querySelectorAll('.kept .axis text')].map(e => e.getBoundingClientRect())"
    boxes = tab.value(f"{words}.map(b => [b.left, b.right])")
    assert len(boxes) >= 4
    assert all(a[1] < b[0] for a, b in pairwise(sorted(boxes)))


def test_several_answers_have_a_list_and_one_player_a_clip(movie: Path, tmp_path: Path) -> None:
    failed = Outcome(Question(movie, "memory?"), problem=MemoryShortError("Not enough memory."))
    second = outcome(movie, TEXT, "Who speaks?", moments=MOMENTS)
    page = saved(tmp_path / "r.html", full(movie), second, failed, embed=True)
    assert [f"answer-{n}" for n in (1, 2, 3)] == [i for i in page.ids if i.startswith("answer-")]
    hrefs = [str(a["href"]) for a in page.of("a")]
    assert hrefs[:3] == ["#answer-1", "#answer-2", "#answer-3"]
    assert hrefs.count("#clip-1") == 4
    (video,) = page.of("video")
    assert base64.b64decode(str(video["src"]).partition(",")[2]) == movie.read_bytes()
    assert str(video["src"]).startswith("data:video/mp4;base64,")
    assert "Not enough memory." in page.said()
    assert page.value()["schema"] == "omnidrop.answers/1"


def test_embedding_is_limited(run, fake, clip, tmp_path, monkeypatch) -> None:
    target = tmp_path / "r.html"
    assert run("ask", clip, "What?", "--save", target, "--embed") == (0, f"{TEXT}\n", "")
    assert str(Page.read(target).of("video")[0]["src"]).startswith("data:video/mp4")
    monkeypatch.setattr(film, "MOST_EMBEDDED", 100)
    for words, part in (
        (("--save", tmp_path / "s.html", "--embed"), "at most 100 B"),
        (("--save", tmp_path / "s.json", "--embed"), "no page is saved"),
        (("--embed",), "no page is saved"),
    ):
        code, out, err = run("ask", clip, "What?", *words)
        assert (code, out) == (2, "")
        assert part in err
    assert not any(entry.startswith("load") for entry in fake.log[3:])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen(tab, movie: Path, tmp_path: Path, width: int, dark: bool) -> None:
    long = outcome(movie, "word " * 300, "Why " + "x" * 200 + "?", moments=MOMENTS)
    saved(tmp_path / "r.html", full(movie), long)
    tab.open(tmp_path / "r.html", width, dark=dark)
    tab.value("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert tab.value("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('main > *, article > *, h1, p, li, figure, svg')]"
    assert tab.value(f"Math.max(...{wide}.map(e => e.getBoundingClientRect().right))") <= width
    assert tab.said() == []
    light = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", light)[0]) < 128) is dark


#: The contrast of all text with what is behind it, by WCAG 2.2's formula.
CONTRAST = """
(() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const part = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const ratios = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || e.closest("script, video")) continue;
    const style = getComputedStyle(e);
    const ink = e.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(rgb(ink)), light(behind(e))].sort((x, y) => y - x);
    ratios.push((a + 0.05) / (b + 0.05));
  }
  return [ratios.length, Math.min(...ratios)];
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out(tab, movie: Path, tmp_path: Path, dark: bool) -> None:
    saved(tmp_path / "r.html", full(movie), outcome(movie))
    tab.open(tmp_path / "r.html", 1280, dark=dark)
    count, least = tab.value(CONTRAST)
    assert count > 100
    assert least >= 4.5


@pytest.mark.slow
@pytest.mark.parametrize("embed", [False, True])
def test_a_time_jumps_in_the_player(tab, tmp_path: Path, embed: bool) -> None:
    clip = media.webm(tmp_path / "a clip #1.webm", seconds=6.0)  # every Chromium plays VP9
    saved(tmp_path / "r.html", full(clip), embed=embed)
    tab.open(tmp_path / "r.html", 390)
    tab.wait(
        "document.querySelector('video').readyState >= 1 || document.querySelector('video').error"
    )
    assert tab.value("document.querySelector('video').error") is None
    jump = "document.querySelectorAll('a[data-at]')[{}].click(), {video}.currentTime"
    video = "document.querySelector('video')"
    assert tab.value(jump.format(0, video=video)) == 2.0
    assert tab.value(jump.format(1, video=video)) == 5.0
    tab.wait(f"{video}.currentTime > 5.2")
    tab.wait(f"{video}.paused")
    assert tab.value(f"{video}.currentTime") < 5.95  # it ends with the moment, not with the clip
    assert tab.value("location.pathname").endswith("/r.html")
    assert tab.said() == []
    outside = [a for a in tab.asked_for() if not a.startswith(("file:", "data:"))]
    assert outside == []


def test_the_keyboard_reaches_everything(tab, movie: Path, tmp_path: Path) -> None:
    saved(tmp_path / "r.html", full(movie))
    tab.open(tmp_path / "r.html", 390)
    wanted = tab.value(
        "[...document.querySelectorAll('main a, main summary, main video, footer a')]"
        ".filter(e => e.tabIndex < 0).length"
    )
    assert wanted == 0
    tables = "[...document.querySelectorAll('.scroll')]"
    assert tab.value(f"{tables}.every(e => e.tabIndex === 0 && e.getAttribute('aria-label'))")


def test_a_script_in_an_answer_does_not_run(tab, movie: Path, tmp_path: Path) -> None:
    hostile = "<img src=x onerror='window.ran = 1'><script>window.ran = 1</script>"
    saved(tmp_path / "r.html", outcome(movie, hostile, hostile, notices=(hostile,)))
    tab.open(tmp_path / "r.html", 390)
    assert tab.value("window.ran") is None
    assert hostile in tab.value("document.body.innerText")
