"""The served page in a browser: a real upload and answer, keys, screen readers, errors."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, chromium

from omnidrop import format as fmt
from omnidrop.options import LoadOptions
from omnidrop.serving.settings import HttpSettings
from omnidrop.serving.warm import WarmModel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium"),
]

SAMPLES = Path(__file__).parents[2] / "samples"
NASTY = "<img src=x onerror=alert(1)>.mp4"
KEY = "open-sesame"
#: Roles of what can be used, or stands for something to be seen: each needs a name.
NEED_NAMES = {
    "button", "link", "textbox", "searchbox", "slider", "spinbutton", "combobox", "checkbox",
    "dialog", "region", "form", "figure", "table", "list", "image", "progressbar", "Video",
    "DisclosureTriangle", "heading",
}  # fmt: skip


@dataclass
class Served:
    """A server that runs in this process; its URL ends in a slash."""

    url: str
    warm: WarmModel


@contextmanager
def serving(warm: WarmModel, **settings: Any) -> Iterator[Served]:
    pytest.importorskip("uvicorn")
    from omnidrop.serving.server import http_server

    with http_server(warm, HttpSettings(port=0, **settings)) as url:
        yield Served(f"{url}/", warm)


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmModel]:
    made = WarmModel(LoadOptions(model="demo"), None)
    with made.use():
        pass  # loaded here, not in the first question's time
    yield made
    made.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    shutil.copy(SAMPLES / "duet.mp4", folder / NASTY)
    shutil.copy(SAMPLES / "long.mp4", folder)
    return folder


@pytest.fixture(scope="module")
def server(warm: WarmModel, root: Path) -> Iterator[Served]:
    with serving(warm, root=root, queue=0) as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(tab: Browser) -> Iterator[None]:
    """Leave nothing for the next test in the tab; nothing went wrong unseen."""
    yield
    tab.value("sessionStorage.clear()")


def there(tab: Browser, selector: str, count: int = 1) -> None:
    tab.wait(f"document.querySelectorAll({selector!r}).length >= {count}")


def text(tab: Browser, selector: str) -> str:
    return str(tab.value(f"document.querySelector({selector!r}).innerText"))


def pick(tab: Browser, name: str) -> None:
    """Open a clip of the list."""
    there(tab, ".clip")
    find = f"[...document.querySelectorAll('.clip')].find((b) => b.textContent.includes({name!r}))"
    tab.value(f"{find}.click()")
    tab.wait("!document.getElementById('work').hidden")


def put(tab: Browser, question: str) -> None:
    """Type a question, and press Enter."""
    tab.value("document.getElementById('question').select()")
    tab.type(question)
    tab.press("Enter")


def answered(tab: Browser, count: int = 1) -> None:
    there(tab, ".card .actions", count)


def test_a_clip_is_sent_and_asked(tab: Browser, server: Served) -> None:
    tab.open(server.url, 1280, 800)
    there(tab, ".clip", 2)
    tab.choose("#file", SAMPLES / "duet.mp4")
    tab.wait("!document.getElementById('work').hidden")
    put(tab, "What instrument plays first?")  # waits for the upload
    answered(tab)
    assert text(tab, ".answer") == "piano"
    assert "likely right" in text(tab, ".sure")
    said = tab.value("document.getElementById('said').textContent")
    assert said == "piano"
    # The timeline: audio and video apart, what was attended, the same in words and numbers.
    assert tab.value("[...document.querySelectorAll('.corner')].map((c) => c.textContent)") == [
        "video", "audio", "attended",
    ]  # fmt: skip
    told = tab.value("document.querySelector('.chart .unseen').textContent")
    assert told.startswith("From 0:00–0:07, kept on average over the layers: video ")
    rows = tab.value("document.querySelectorAll('#map-table tbody tr').length")
    report = json.loads(tab.value("sessionStorage['omnidrop.history']"))
    (entries,) = report.values()
    trace = entries[0]["report"]["trace"]
    assert rows == len(trace["chunks"])
    # The player goes to the moment and plays.
    tab.wait("document.getElementById('player').readyState >= 2")
    tab.value("document.getElementById('player').currentTime = 6")
    tab.value("document.querySelector('.moment-play').click()")
    start, end = trace["moments"][0]["start"], trace["moments"][0]["end"]
    tab.wait("!document.getElementById('player').paused")
    assert start <= tab.value("document.getElementById('player').currentTime") < end
    # Loaded anew, the page has the clip and its answers again.
    tab.call("Page.reload")
    tab.wait("document.querySelector('.answer')?.textContent === 'piano'")
    # An uploaded clip is deleted from the server, one of the folder is not.
    tab.value("document.getElementById('other').click()")
    delete = "document.querySelectorAll('.clips .link')"
    tab.wait(f"{delete}.length === 1 && document.querySelectorAll('.clip').length === 3")
    tab.value(f"{delete}[0].click()")
    tab.wait(f"{delete}.length === 0 && document.querySelectorAll('.clip').length === 2")
    count = "fetch('v1/clips').then((r) => r.json()).then((found) => found.data.length)"
    assert tab.value(count) == 2
    assert "piano" not in tab.value("sessionStorage['omnidrop.history']")
    assert tab.said() == []
    assert all(url.startswith((server.url, "data:", "blob:")) for url in tab.asked_for())


def test_what_a_budget_means(tab: Browser, server: Served) -> None:
    tab.open(server.url, 1280, 800)
    pick(tab, "long.mp4")
    there(tab, "#cost small")
    before = text(tab, "#cost")
    tab.value("document.getElementById('budget').focus()")
    for _ in range(5):
        tab.press("ArrowRight")
    tab.wait(f"document.getElementById('cost').innerText !== {before!r}")
    assert text(tab, "#budget-value") == "35 %"
    tab.wait("document.getElementById('told').textContent.includes('tokens, about')")
    kept = tab.value("document.querySelector('#cost dd').firstChild.textContent")
    whole = int(text(tab, "#cost small").removeprefix("of ").replace(",", ""))
    assert int(kept.replace(",", "")) == pytest.approx(0.35 * whole, abs=0.02 * whole)
    # What was chosen is what is asked, and said beside the answer.
    tab.value("document.getElementById('options').open = true")
    assert text(tab, "#method option") == "The model’s own (omnidrop-auto)"
    tab.value("document.getElementById('method').focus()")
    tab.press("d")
    tab.wait("document.getElementById('method-note').textContent.startsWith('Keeps audio by ')")
    for name, value in (("start", "0:10"), ("end", "22"), ("choices", "circle, star")):
        tab.value(f"document.getElementById('{name}').focus()")
        tab.type(value)
        tab.press("Tab")
    put(tab, "Which shape comes last?")
    answered(tab)
    trace = next(iter(json.loads(tab.value("sessionStorage['omnidrop.history']")).values()))
    report = trace[0]["report"]
    assert report["trace"]["asked_budget"] == pytest.approx(0.35)
    assert report["trace"]["method"]["name"] == "dash"
    assert report["trace"]["clip"]["start"] == 10.0
    assert report["trace"]["clip"]["span"] == pytest.approx(12.0, abs=0.1)
    assert {choice["text"] for choice in report["choices"]} == {"circle", "star"}
    assert "0:10–0:22 · budget 35 % · method dash · 2 choices" in text(tab, ".card header")
    assert tab.said() == []


def test_by_keyboard_on_a_phone(tab: Browser, server: Served, tmp_path: Path) -> None:
    tab.open(server.url, 390, dark=True)
    there(tab, ".clip", 2)
    for _ in range(10):
        tab.press("Tab")
        if "<img" in tab.value("document.activeElement.textContent"):
            break
    ring = "getComputedStyle(document.activeElement).outlineStyle"
    assert tab.value(ring) == "solid"
    tab.press("Enter")
    tab.wait("document.activeElement.id === 'question'")
    tab.type("What shape appears first?")
    tab.press("Enter")
    answered(tab)
    # What follows the field, in the order in which it is seen.
    order = []
    for _ in range(16):
        tab.press("Tab")
        order.append(tab.value("document.activeElement.id || document.activeElement.className"))
    seen = [order.index(name) for name in ("go", "budget", "export", "link")]
    assert seen == sorted(seen)
    tops = tab.value("""[...document.querySelectorAll('#question, #budget, #export, .card button')]
        .filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect().top)""")
    assert tops == sorted(tops)
    # Up brings the last question back, the slash leads to it.
    tab.press("/")
    assert tab.value("document.activeElement.id") == "question"
    tab.value("document.getElementById('question').value = ''")
    tab.press("ArrowUp")
    assert tab.value("document.getElementById('question').value") == "What shape appears first?"
    assert tab.value("document.documentElement.scrollWidth") == 390
    small = tab.value("""[...document.querySelectorAll('button, summary, label.button')]
        .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 24).length""")
    assert small == 0
    assert tab.said() == []


def test_a_screen_reader_finds_names(tab: Browser, server: Served) -> None:
    tab.open(server.url, 1280, 800)
    there(tab, ".clip", 2)
    roles = tab.roles()
    pick(tab, "<img")
    put(tab, "What shape appears first?")
    answered(tab)
    tab.value("for (const d of document.querySelectorAll('details')) d.open = true")
    roles += tab.roles()
    assert [role for role, name in roles if role in NEED_NAMES and not name] == []
    assert ("slider", "Budget audio and video tokens kept") in roles
    assert ("log", "Answer, as it is spoken") in roles
    levels = tab.value("""[...document.querySelectorAll('h1, h2, h3, h4')]
        .filter((e) => e.checkVisibility()).map((e) => Number(e.tagName[1]))""")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_names_and_words_stay_text(tab: Browser, server: Served) -> None:
    tab.open(server.url, 1280, 800)
    pick(tab, "<img")
    assert text(tab, "#clip-name") == NASTY
    put(tab, "Is there a <b>piano</b>?")
    answered(tab)
    assert text(tab, ".question") == "Is there a <b>piano</b>?"
    assert tab.value("document.querySelectorAll('main img, .card b').length") == 0
    assert not [line for line in tab.said() if "Content Security Policy" in line]


def test_a_question_that_the_model_does_not_know(tab: Browser, server: Served) -> None:
    tab.open(server.url, 1280, 800)
    pick(tab, "<img")
    put(tab, "What is the weather in Paris?")
    there(tab, ".remedy button")
    assert "weather" in text(tab, ".card .warn")
    assert "anyway" not in text(tab, ".card .warn")
    assert text(tab, ".remedy button") == "Ask anyway"
    tab.value("document.querySelector('.remedy button').click()")
    there(tab, ".card .facts")
    assert tab.value("document.querySelectorAll('.card').length") == 1


def test_what_is_no_clip(tab: Browser, server: Served, root: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.mp4"
    words.write_text("These are words.\n" * 50)
    tab.open(server.url, 390)
    there(tab, ".clip", 2)
    tab.choose("#file", words)
    tab.wait("!document.getElementById('fault').hidden")
    assert "holds text" in text(tab, "#fault")
    shutil.copy(words, root / "words.mp4")
    tab.open(server.url, 390)
    pick(tab, "words.mp4")
    tab.wait("!document.getElementById('choose').hidden")
    assert "holds text" in text(tab, "#fault")
    (root / "words.mp4").unlink()


def test_stopping_and_a_full_queue(tab: Browser, server: Served) -> None:
    tab.open(server.url, 1280, 800)
    pick(tab, "<img")
    with server.warm.turn():  # so that a question waits
        put(tab, "What plays first?")
        there(tab, ".card .running")
        tab.wait("!document.getElementById('stop').hidden")
        full = {"model": "omnidrop", "messages": [{"role": "user", "content": "Which?"}]}
        tab.wait("fetch('health').then((r) => r.json()).then((h) => h.waiting + h.running > 0)")
        # Another tab's question finds no place.
        status = tab.value(
            "fetch('v1/chat/completions', {method: 'POST', headers: {'Content-Type': "
            f"'application/json'}}, body: {json.dumps(full)!r}}}).then((r) => r.status)"
        )
        assert status == 429
        tab.press("Escape")
        answered(tab)
        assert "Stopped." in text(tab, ".card")
        assert tab.value("document.getElementById('stop').hidden")
    tab.wait("fetch('health').then((r) => r.json()).then((h) => h.waiting + h.running === 0)")
    tab.value("document.querySelector('.remedy button').click()")
    there(tab, ".card .facts")


def test_answers_are_saved_as_json(tab: Browser, server: Served, tmp_path: Path) -> None:
    tab.open(server.url, 1280, 800)
    pick(tab, "<img")
    for count, question in enumerate(
        ("What instrument plays first?", "What color is the star?"), 1
    ):
        put(tab, question)
        answered(tab, count)
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.value("document.getElementById('export').click()")
    target = tmp_path / "-img-src-x-onerror-alert-1-.mp4.answers.json"
    tab.wait_for(target.is_file)
    saved = json.loads(target.read_text("utf-8"))
    assert saved["schema"] == "omnidrop.answers/1"
    assert [one["question"] for one in saved["answers"]] == [
        "What instrument plays first?", "What color is the star?",
    ]  # fmt: skip
    assert saved["errors"] == []
    # One is removed, and then all.
    tab.value("[...document.querySelectorAll('.card .actions button')].at(-1).click()")
    assert tab.value("document.querySelectorAll('.card').length") == 1
    tab.value("document.getElementById('clear').click()")
    assert tab.value("document.querySelectorAll('.card').length") == 0
    assert tab.value("document.activeElement.id") == "question"


def test_a_server_with_a_key(tab: Browser, warm: WarmModel, root: Path) -> None:
    with serving(warm, root=root, api_key=KEY) as served:
        tab.open(served.url, 390)
        tab.wait("document.getElementById('key').open")
        tab.type("no-such-key")
        tab.press("Enter")
        tab.wait("document.getElementById('key-note').textContent.includes('does not know')")
        tab.type(KEY)
        tab.press("Enter")
        pick(tab, "long.mp4")
        tab.wait("document.getElementById('player').readyState >= 1")
        there(tab, "#cost small")


def test_a_server_that_went_away(tab: Browser, warm: WarmModel, root: Path) -> None:
    with serving(warm, root=root) as served:
        tab.open(served.url, 1280, 800)
        pick(tab, "long.mp4")
        there(tab, "#cost small")
    put(tab, "Which shape comes last?")
    there(tab, ".remedy button")
    assert "does not answer" in text(tab, ".card .warn")
    assert text(tab, ".remedy button") == "Try again"


def test_numbers_are_those_of_the_command_line(tab: Browser, server: Served) -> None:
    tab.open(server.url, 1280, 800)
    seconds = [0.0, 0.004, 0.0123, 0.0995, 1.004, 9.996, 44.44, 119.6, 125.0, 3725.0, 90000.0]
    bytes_ = [0, 999, 1500, 23_456_789, 999_600_000, 1.2e12]
    given = {
        "clock": [[s] for s in seconds] + [[1.55, True], [2.04, None], [2.5, None]],
        "span": [[0, 2], [0.5, 1.25], [62, 3700]],
        "share": [[0.3], [0.12345, 0], [None], [1]],
        "percent": [[0.999], [0.001], [0.5]],
        "duration": [[s] for s in seconds],
        "size": [[b] for b in bytes_],
        "flops": [[b] for b in bytes_],
        "number": [[12345.4], [0]],
    }
    words = f"Object.entries({json.dumps(given)}).map(([n, l]) => l.map((a) => w[n](...a)))"
    found = tab.value(f"import('/words.js').then((w) => {words})")
    assert found == [[getattr(fmt, name)(*one) for one in given[name]] for name in given]
