"""Published benchmarks: tiny copies in the publishers' own layouts, made up for these tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from omnidrop.errors import MediaError, UsageError
from omnidrop.evaluation.benchmarks.reader import Reader
from omnidrop.evaluation.items import QuestionSet
from omnidrop.evaluation.sets import formats, read_set

FIXTURES = Path(__file__).parent / "fixtures"

#: Format, fixture, clips at the publisher's place, then what the first question must say.
LAYOUTS = [
    (
        "worldsense",
        "worldsense",
        ["videos/clipone11.mp4", "videos/cliptwo22.mp4"],
        ("clipone11/task0", "How many drums are there?", "Two.", "Object Counting"),
        {"domain": "Music", "abilities": "Understanding", "sound": "Music and Speech"},
    ),
    (
        "daily-omni",
        "daily-omni",
        ["Videos/dayvideo001/dayvideo001_video.mp4"],
        ("dayvideo001/1", "What is shown while the bell rings?", "A car", "AV Event Alignment"),
        {"duration": "30s", "topic": "Howto & Style"},
    ),
    (
        "avut",
        "avut",
        ["data/avutvid0001.mp4"],
        ("1", "How often does the horn sound?", "twice", "Audio Content Counting"),
        {"video": "vlog"},
    ),
    (
        "video-mme",
        "video-mme",
        ["data/mmevid00001.mp4"],
        ("001-1", "How many birds are in the tree?", "Four.", "Counting Problem"),
        {"duration": "short", "domain": "Knowledge"},
    ),
    (
        "video-mme",
        "video-mme-github",
        ["videos/mmevid00002.mkv"],
        ("002-1", "What do they build?", "A house.", "Action Recognition"),
        {"duration": "long", "domain": "Life Record"},
    ),
    (
        "music-avqa",
        "music-avqa",
        ["MUSIC-AVQA-videos-Real/00000001.mp4", "MUCIS-AVQA-videos-Synthetic/sa00000002.mp4"],
        ("00000001/11", "Is the ukulele in the video always playing?", "yes", "Audio-Visual"),
        {"kind": "Existential"},
    ),
    (
        "omnivideobench",
        "omnivideobench",
        ["videos/video_1.mp4"],
        ("video_1/1", "Which way does she point?", "East", "spatial understanding"),
        {"sound": "Speech", "video": "Vlog"},
    ),
    (
        "lvomnibench",
        "lvomnibench",
        ["videos/video_0.mp4"],
        ("video_0/1", "What is said after the door closes?", "Goodbye", "Understanding"),
        {"sound": "Speech", "difficulty": "Medium", "video": "Film"},
    ),
]


def copy(fixture: str, clips: list[str], folder: Path) -> Path:
    place = folder / fixture
    shutil.copytree(FIXTURES / fixture, place)
    for clip in clips:
        (place / clip).parent.mkdir(parents=True, exist_ok=True)
        (place / clip).write_bytes(b"clip")
    return place


def test_every_format_has_a_fixture() -> None:
    assert {name for name, *_ in LAYOUTS} == set(formats()) - {"avsynth"}


@pytest.mark.parametrize(("name", "fixture", "clips", "first", "groups"), LAYOUTS)
def test_a_local_copy_is_read(tmp_path: Path, name, fixture, clips, first, groups) -> None:
    place = copy(fixture, clips, tmp_path)
    found = read_set(f"{name}:{place}")
    item = found.items[0]
    assert (item.id, item.question, item.answer, item.category) == first
    assert item.groups == groups
    assert [path.relative_to(place).as_posix() for path in found.videos] == clips
    assert (found.name, found.style) == (name, "letters")
    assert all(item.answer in item.choices for item in found.items if item.choices)
    assert not any(choice[:2] in ("A.", "B.") for choice in item.choices)


@pytest.mark.parametrize(("name", "fixture", "clips", "first", "groups"), LAYOUTS)
def test_clips_may_lie_in_one_folder(tmp_path: Path, name, fixture, clips, first, groups) -> None:
    place, videos = copy(fixture, [], tmp_path), tmp_path / "clips"
    videos.mkdir()
    for clip in clips:
        (videos / Path(clip).name).write_bytes(b"clip")
    found = read_set(f"{name}:{place}", videos=videos)
    assert all(path.parent == videos for path in found.videos)
    with pytest.raises(MediaError, match="None of the"):
        read_set(f"{name}:{place}")


def read(fixture: str, folder: Path) -> QuestionSet:
    row = next(row for row in LAYOUTS if row[1] == fixture)
    return read_set(f"{row[0]}:{copy(fixture, row[2], folder)}")


def test_what_cannot_be_answered_is_left_out_and_named(tmp_path: Path) -> None:
    found = read("avut", tmp_path)
    assert [item.id for item in found.items] == ["1"]
    assert "cannot be answered: 2" in found.note


def test_an_answers_letter_is_a_place_even_among_letters(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    reader = Reader("any", tmp_path, None, ["clip.mp4"])
    item = reader.item("1", "(A)", ("B", "A"), video=tmp_path / "clip.mp4", question="Which note?")
    assert item.answer == "B"


def test_deleted_questions_are_not_asked_and_slots_are_filled_in_order(tmp_path: Path) -> None:
    found = read("music-avqa", tmp_path)
    assert [item.question for item in found.items] == [
        "Is the ukulele in the video always playing?",
        "Is the flute louder than the drum?",
    ]


def test_choices_lose_their_letters_with_and_without_a_space(tmp_path: Path) -> None:
    assert read("omnivideobench", tmp_path).items[0].choices == ("North", "South", "West", "East")


def test_the_question_file_may_be_named_itself(tmp_path: Path) -> None:
    place = copy("worldsense", ["videos/clipone11.mp4"], tmp_path)
    assert len(read_set(f"worldsense:{place / 'worldsense_qa.json'}").items) == 3


def test_parquet_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "videomme").mkdir()
    (tmp_path / "videomme" / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError) as caught:
        read_set(f"video-mme:{tmp_path}")
    assert "read_parquet('videomme/test-00000-of-00001.parquet')" in str(caught.value)
    assert "to_json('videomme/test.jsonl'" in str(caught.value)


def broken(fixture: str, folder: Path, change) -> str:
    place = copy(fixture, [], folder)
    path = next(place.rglob("*.json"))
    rows = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(rows)), encoding="utf-8")
    name = next(row[0] for row in LAYOUTS if row[1] == fixture)
    with pytest.raises(UsageError) as caught:
        read_set(f"{name}:{place}")
    return str(caught.value)


def without(name: str):
    def change(rows):
        rows[1].pop(name)
        return rows

    return change


def test_a_damaged_copy_is_named_exactly(tmp_path: Path) -> None:
    said = broken("daily-omni", tmp_path, without("Answer"))
    assert "Question 2: Answer is missing" in said
    said = broken("avut", tmp_path, without("QA_id"))
    assert "Question 2: QA_id is missing" in said
    said = broken("music-avqa", tmp_path, without("templ_values"))
    assert "Question 2: templ_values is no list" in said
    said = broken("worldsense", tmp_path, lambda rows: [])
    assert "worldsense is an object of questions" in said


def test_an_answer_beyond_the_choices_is_named(tmp_path: Path) -> None:
    def change(rows):
        rows[0]["Answer"] = "E"
        return rows

    assert "dayvideo001/1: answer 'E' is none of the choices" in broken(
        "daily-omni", tmp_path, change
    )


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no local copy of worldsense.*worldsense_qa\.json"):
        read_set(f"worldsense:{tmp_path}")
    with pytest.raises(MediaError, match="no such folder"):
        read_set(f"worldsense:{tmp_path / 'none'}")
