"""What the words after `omnidrop ask` are taken to be: clips, questions, folders, addresses."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest

from omnidrop.errors import MediaError, UsageError
from omnidrop_cli.options import parsing
from omnidrop_cli.options.clips import expand_folders, is_url, url_error
from omnidrop_cli.options.words import read_words


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two clips, a file without suffix and a folder; it is the current one."""
    for name in ("a.mp4", "b c.mp4", "music", "talk.mkv"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "samples").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(words: list[str], *questions: str) -> tuple[list[str], list[str], str]:
    found = read_words(words, questions)
    return [str(clip) for clip in found.clips], list(found.questions), found.notice


@pytest.mark.parametrize(
    ("words", "clips", "question"),
    [
        (["a.mp4", "What plays first?"], ["a.mp4"], "What plays first?"),
        (["a.mp4", "b c.mp4", "What?"], ["a.mp4", "b c.mp4"], "What?"),
        (["none.mp4", "a.mp4", "What?"], ["none.mp4", "a.mp4"], "What?"),
        (["none", "a.mp4", "What plays?"], ["none", "a.mp4"], "What plays?"),
        (["none", "what"], ["none"], "what"),
        (["samples", "What?"], ["samples"], "What?"),
        (["a.mp4", "What happens in talk.mkv"], ["a.mp4"], "What happens in talk.mkv"),
        (["a.mp4", "/tmp?"], ["a.mp4"], "/tmp?"),
    ],
)
def test_the_documented_order_needs_no_notice(here, words, clips, question) -> None:
    assert asked(words) == (clips, [question], "")


@pytest.mark.parametrize(
    ("words", "clips", "question"),
    [
        ("a.mp4 What instrument plays first?", ["a.mp4"], "What instrument plays first?"),
        ("a.mp4 talk.mkv Who speaks?", ["a.mp4", "talk.mkv"], "Who speaks?"),
        ("a.mp4 How many of the 3 men don't sing , then", ["a.mp4"],
         "How many of the 3 men don't sing , then"),
        ("a.mp4 नमस्ते कौन है", ["a.mp4"], "नमस्ते कौन है"),
        ("What plays first? a.mp4", ["a.mp4"], "What plays first?"),
    ],
)  # fmt: skip
def test_a_question_without_quotes_is_taken_and_the_notice_says_so(
    here, words, clips, question
) -> None:
    found = asked(words.split())
    assert found[:2] == (clips, [question])
    assert question in found[2].replace("'\"'\"'", "'")
    assert "Next time: omnidrop ask a.mp4" in found[2]


@pytest.mark.parametrize("words", [["What plays?", "a.mp4"], ["a.mp4", "What plays?", "talk.mkv"]])
def test_a_question_before_the_last_clip_is_taken_and_the_notice_says_so(here, words) -> None:
    clips, questions, notice = asked(words)
    assert (clips, questions) == ([w for w in words if w != "What plays?"], ["What plays?"])
    assert notice.startswith('"What plays?" is taken as the question')


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        # A word that may be a clip whose name is not complete, or a file that is missing.
        (["a.mp4", "talk", "What?"], 'omnidrop ask a.mp4 "talk What?"'),
        (["a.mp4", "talk_2", "What?"], 'omnidrop ask a.mp4 "talk_2 What?"'),
        (["talk_2", "a.mp4"], 'omnidrop ask a.mp4 "talk_2"'),
        # A word of the question is also a file here.
        (["a.mp4", "Is", "music", "playing?"], 'omnidrop ask a.mp4 "Is music playing?"'),
        (["a.mp4", "What", "is", "in", "samples"], 'omnidrop ask a.mp4 "What is in samples"'),
        (["What", "is", "in", "samples"], 'omnidrop ask samples "What is in"'),
        (["a.mp4", "music"], 'omnidrop ask a.mp4 -q "music"'),
        (["a.mp4", "samples"], 'omnidrop ask a.mp4 -q "samples"'),
        # Several questions, or two that could be one.
        (["a.mp4", "Who speaks?", "Is it loud?"], '-q "Who speaks?" -q "Is it loud?"'),
        (["a.mp4", "Who speaks", "now?"], 'omnidrop ask a.mp4 -q "Who speaks"'),
        # None at all.
        (["a.mp4", "talk.mkv"], 'omnidrop ask a.mp4 talk.mkv "What happens?"'),
        (["What", "plays", "first?"], 'omnidrop ask clip.mp4 "What plays first?"'),
        (["a.mp4"], 'omnidrop ask a.mp4 "What happens?"'),
        (["b c.mp4"], "omnidrop ask 'b c.mp4' \"What happens?\""),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_an_error_that_shows_the_command(here, words, hint) -> None:
    with pytest.raises(UsageError) as caught:
        asked(words)
    assert hint in str(caught.value)


def test_with_q_every_other_word_is_a_clip(here) -> None:
    assert asked(["a.mp4", "music"], "What?") == (["a.mp4", "music"], ["What?"], "")
    with pytest.raises(UsageError, match=r'-q "Who\?" -q "What plays\?"'):
        asked(["a.mp4", "What plays?"], "Who?")
    with pytest.raises(UsageError, match="A clip is missing"):
        asked([], "Who?")


def test_a_clip_that_is_not_there_names_the_nearest(here) -> None:
    with pytest.raises(MediaError, match=r"Did you mean talk\.mkv\?"):
        asked(["tlak.mkv"])


def test_the_notice_goes_to_stderr_and_not_when_quiet(run, fake, clip) -> None:
    words = ("ask", clip, "What", "plays", "first?")
    assert run(*words)[2] == ""  # stdout is no terminal
    code, out, err = run(*words, "--report", "brief")
    assert (code, out) == (0, fakes.TEXT + "\n")
    assert err.startswith('omnidrop: notice: The question is taken to be "What plays first?"')
    assert fake.log[-2] == "ask concert.mp4 What plays first?"
    assert run("ask", "What plays?", clip, "--quiet") == (0, fakes.TEXT + "\n", "")


def folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "clips"


def test_a_folder_is_the_clips_in_it(tmp_path) -> None:
    top = folder(tmp_path, "b.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "deep/c.wav", ".x/d.mp4")
    found, notices = expand_folders([Path("x.mp4"), top, top / "b.mp4"], recursive=False)
    assert found == [Path("x.mp4"), top / "a.MKV", top / "b.mp4"]
    found, notices = expand_folders([top / "b.mp4", top], recursive=True)
    assert found == [top / "b.mp4", top / "a.MKV", top / "deep" / "c.wav"]
    assert notices == []


def test_a_folder_without_video_says_so(tmp_path) -> None:
    top = folder(tmp_path, "a.wav", "b.mp3")
    _, notices = expand_folders([top], recursive=False)
    assert notices == [f"{top} holds no video: 2 sound files used."]


@pytest.mark.parametrize(
    ("names", "recursive", "said"),
    [
        (["deep/a.mp4", "deep/er/b.mp4"], False, "There are 2 clips in the folders below: add --"),
        (["deep/a.mp4"], False, "There is 1 clip in the folders below: add --recursive."),
        (["x.txt", "y.txt"], True, "none of its 2 files is video or audio. Name a folder with"),
        (["deep/.x"], True, "it has no file that is video or audio."),
    ],
)
def test_a_folder_without_clips_is_an_error(run, fake, tmp_path, names, recursive, said) -> None:
    top = folder(tmp_path, *names)
    code, _, err = run("ask", top, "What?", *["--recursive"] * recursive)
    assert code == 3
    assert said in err
    assert fake.log == []


def test_every_clip_of_a_folder_is_asked_about(run, fake, clip) -> None:
    (clip.parent / "deep").mkdir()
    (clip.parent / "deep" / "b.mp4").write_bytes(clip.read_bytes())
    _, out, _ = run("ask", clip.parent, "What?", "-r")
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        str(clip), str(clip.parent / "deep" / "b.mp4")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://x.org/a/talk.mp4?t=1&b=2", "curl -L -o talk.mp4 'https://x.org/a/talk.mp4?t=1&b=2'"),
        ("https://www.youtube.com/watch?v=abc", "yt-dlp -S ext -o clip.mp4 'https://www.youtube.com/"),
        ("https://youtu.be/abc.mp4", "yt-dlp"),
        ("https://example.org/watch/123", "yt-dlp"),
        ("s3://bucket/a.mp4", "Copy the file to this machine first."),
        ("file:///data/a b.mp4", "Type: '/data/a b.mp4'"),
    ],
)  # fmt: skip
def test_an_address_gets_the_command_that_fetches_it(run, fake, url, hint) -> None:
    assert hint in str(url_error(url))
    for words in (("ask", url, "What?"), ("ask", url), ("profile", url), ("estimate", url)):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert "This is a URL" in err
        assert hint in err
    assert fake.log == []


def test_what_is_no_address() -> None:
    for text in ("C:/clips/a.mp4", "C:\\a.mp4", "a.mp4", "what: is it", "/a//b.mp4", "a/b:/c"):
        assert not is_url(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [("30%", 0.3), ("7%", 0.07), ("12.3%", 0.123), (" 30 % ", 0.3), ("0.3", 0.3), (".5", 0.5),
     (0.2, 0.2), ("100%", 1.0)],
)  # fmt: skip
def test_shares(text, share) -> None:
    assert parsing.parse_share(text) == share
    assert parsing.parse_budget(text) == share
    if isinstance(text, str):
        assert parsing.parse_budgets(f"{text},{text},90%") == (share, 0.9)


@pytest.mark.parametrize("text", ["", "%", "30%%", "%30", "3e2%e", "1/3", "30 percent"])
def test_not_shares(text) -> None:
    with pytest.raises(UsageError, match="is not a share"):
        parsing.parse_share(text)


def test_percent_everywhere_a_share_is_taken(run, fake, clip) -> None:
    import json

    out = run("ask", clip, "What?", "--budget", "20%", "--json")[1]
    assert json.loads(out)["trace"]["asked_budget"] == 0.2
    from omnidrop_cli.options.eval import EntrantFlags

    variant = EntrantFlags(variants=["a=random:budget=30%,seed=1"]).labelled()
    assert variant == [("a", "random", {"budget": 0.3, "seed": 1})]
