"""What a model's files say it knows: which questions and clips lie outside of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from avsynth.wordings import words

import omnidrop
from omnidrop.errors import ModelError, OutsideError
from omnidrop.models.codec import read_codec
from omnidrop.models.locations import demo_folder
from omnidrop.models.world import FILE, World, read_world, words_of

ROOT = Path(__file__).parent.parent.parent
TEST = ROOT / "samples" / "avsynth" / "test.jsonl"

#: Questions that the demo model cannot know anything about.
OUTSIDE = [
    "Who is the president?",
    "What is the man saying?",
    "Is there a dog?",
    "Is it day or night?",
    "What is on the slide?",
    "Who speaks?",
    "Is there music?",
    "What happens?",
    "How many people are there?",
    "What colour is the car?",
    "Which instrument plays the melody?",
    "WHERE DOES THIS TAKE PLACE?",
    "what language is spoken",
    "Is the weather good?",
    "Describe the clip.",
    "Why do you hear a piano?",
    "Does the saxophone play?",
    "Is there a hexagon?",
    "Which shape is pink?",
    "What's the speaker's name?",
    "Does the woman laugh after the pause?",
    "Welche Farbe hat der Kreis?",
    "Quel instrument joue en premier ?",
    "¿Qué instrumento suena primero?",
    "Какой инструмент играет первым?",
    "最初に鳴る楽器は何ですか",
    "ما هي الآلة الأولى؟",
    "How many instruments play at 12?",
    "What is 2 + 2?",
    "Is there a 🎸?",
    "Is there a pi\u200bano?",
    "Isn't there a piano?",
    "???",
    "42",
]

INSIDE = [
    "What instrument plays first?",
    "what instrument plays first",
    "WHICH COLOUR IS THE DIGIT? CHOICES: GREEN, YELLOW",
    "What's the first instrument?",
    "Is there a piano, or is there a flute?",
    "“Which shape” — is shown?! (first)…",
    "Which digit is shown: 1, 2, 3, 4, 5 or 6?",
    "Is the square/circle shown first; or second?",
]


@pytest.fixture(scope="module")
def world() -> World:
    found = read_world(demo_folder())
    assert found is not None
    return found


def items() -> list[dict]:
    return [json.loads(line) for line in TEST.read_text(encoding="utf-8").splitlines()]


def test_no_question_of_the_test_set_is_outside(world) -> None:
    asked = items()
    assert len(asked) == 600
    alarms = [q for q in asked if world.check("demo", q["question"], q["choices"], 12.0)]
    assert not alarms


@pytest.mark.parametrize("question", OUTSIDE)
def test_what_the_demo_cannot_know_is_outside(world, question) -> None:
    assert isinstance(world.check("demo", question), OutsideError)


@pytest.mark.parametrize("question", INSIDE)
def test_case_and_punctuation_do_not_matter(world, question) -> None:
    assert world.check("demo", question) is None


def test_choices_count_as_the_question_does(world) -> None:
    question = "Which instrument plays first?"
    assert world.check("demo", question, ["piano", "FLUTE"]) is None
    found = world.check("demo", question, ["Obama", "Merkel", "piano", "Macron"])
    assert found.words == ("Obama", "Merkel", "Macron")


def test_every_known_word_is_one_token(world) -> None:
    codec = read_codec(demo_folder())
    for word in world.words:
        for form in (word, word.capitalize(), word.upper()):
            pieces = [form] if word.isdigit() else [form, f" {form}"]
            assert [len(codec.encode(piece)[0]) for piece in pieces] == [1] * len(pieces), form


def test_it_knows_the_words_of_every_wording(world) -> None:
    assert set(words()) <= world.words
    assert {thing for things in world.knows.values() for thing in things} <= world.words


def test_a_word_in_another_case_is_in_pieces_for_the_model(world) -> None:
    assert world.unknown("piANO") == ("piANO",)
    assert world.unknown("Piano PIANO piano") == ()


def test_each_unknown_word_is_named_once_as_written(world) -> None:
    assert world.unknown("Who, who is Who?", "who") == ("Who", "who")


def test_the_message_says_what_is_unknown_and_what_is_known(world) -> None:
    found = world.check("demo", "Which instrment plays first?")
    for part in ("“instrment”", "instruments (piano, guitar", "Did you mean instrument for instrm"):
        assert part in found.what
    many = world.check("demo", " ".join(f"unheard{chr(97 + i)}" for i in range(20)))
    assert "and 14 more words" in many.what
    assert len(many.words) == 20


def test_long_clips_are_outside_and_longish_ones_noted(world) -> None:
    question = "What instrument plays first?"
    assert world.check("demo", question, seconds=12.0) is None
    assert world.long_notice(12.3) is None
    assert world.check("demo", question, seconds=24.0) is None
    assert "24 s long" in world.long_notice(24.0)
    found = world.check("demo", question, seconds=64.0)
    assert "5 to 12 s" in found.what
    assert found.seconds == 64.0
    assert "shorter part (--start, --end)" in found.hint
    assert found.words == ()


def test_words_of_a_text() -> None:
    assert list(words_of("It's 12:30, a-b_c 🎸 x|y")) == [
        "It's",
        "12",
        "30",
        "a",
        "b",
        "c",
        "🎸",
        "x",
        "y",
    ]
    assert list(words_of("'quoted' rock'n'roll")) == ["quoted", "rock'n'roll"]
    assert list(words_of("e\u0301te")) == ["éte"]
    assert list(words_of(" \n.,;")) == []


def test_a_model_without_the_file_has_no_limits(tmp_path) -> None:
    assert read_world(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "omnidrop.world/9"}, "its schema is 'omnidrop.world/9'"),
        ({"words": None}, "does not say what the model knows"),
        ({"choices": "numbers"}, "choices are 'numbers'"),
        ({"trained_seconds": [5]}, "does not say what the model knows"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change, message) -> None:
    found = json.loads((demo_folder() / FILE).read_text(encoding="utf-8")) | change
    (tmp_path / FILE).write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ModelError, match=r"world\.json") as raised:
        read_world(tmp_path)
    assert message in str(raised.value)


@pytest.fixture(scope="module")
def demo() -> omnidrop.Model:
    return omnidrop.load("demo", device="cpu")


def test_the_library_refuses_and_can_be_told_to_ask(demo) -> None:
    with demo.open(ROOT / "samples" / "duet.mp4") as clip:
        with pytest.raises(OutsideError) as raised:
            clip.ask("Who is the president?")
        assert raised.value.exit_code == 4
        assert raised.value.words == ("Who", "president")
        with pytest.raises(OutsideError):
            clip.ask("Which instrument plays first?", choices=["Obama", "Merkel", "Macron"])
        with pytest.raises(omnidrop.UsageError, match="empty"):
            clip.ask("  ")
        answer = clip.ask("Who is the president?", anyway=True)
        assert any("The answer is a guess." in notice for notice in answer.trace.notices)
        answer = clip.ask("What instrument plays first?")
        assert answer.text == "piano"
        assert not any("guess" in notice for notice in answer.trace.notices)


def test_a_long_clip_is_refused_but_not_a_part_of_it(demo) -> None:
    question = "What instrument plays first?"
    with demo.open(ROOT / "samples" / "long.mp4") as clip, pytest.raises(OutsideError):
        clip.ask(question)
    with demo.open(ROOT / "samples" / "long.mp4", end=8) as clip:
        assert clip.ask(question).text


def test_a_copy_of_the_files_knows_as_much(tmp_path, demo) -> None:
    folder = shutil.copytree(demo_folder(), tmp_path / "copy")
    assert omnidrop.load(str(folder), device="cpu").adapter.world == demo.adapter.world
    (folder / FILE).unlink()
    assert omnidrop.load(str(folder), device="cpu").adapter.world is None
