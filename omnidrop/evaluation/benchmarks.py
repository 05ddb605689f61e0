"""Local copies of published benchmarks, as their publishers lay them out.

Each is named FORMAT:FOLDER (or FORMAT:FILE, its question file). Nothing is downloaded.

    worldsense       worldsense_qa.json, videos/ID.mp4              Hong et al., arXiv 2502.04326
    daily-omni       qa.json, Videos/ID/ID_video.mp4                Zhou et al., arXiv 2505.17862
    avut             AV_Human_data.json, data/ID.mp4                Yang et al., arXiv 2503.19951
    video-mme        videomme/test.jsonl (see below), data/ID.mp4   Fu et al., arXiv 2405.21075
    music-avqa       data/json/avqa-test.json, MUSIC-AVQA-videos-Real/ID.mp4 and
                     MUCIS-AVQA-videos-Synthetic/ID.mp4             Li et al., arXiv 2203.14072
    omnivideobench   data.json, videos/ID.mp4                       Li et al., arXiv 2510.10689

Video-MME is published as Parquet, which nothing that OmniDrop needs can read; the error says how to
turn it into the JSONL that is read here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omnidrop.errors import MediaError, UsageError, printable
from omnidrop.evaluation.sets import LETTERS, Item, QuestionSet, chosen_answer, read_text

Rows = Iterator[tuple[str, dict[str, Any]]]

_LETTERED = re.compile(r"\(?([A-Z])\s*[.):、]\s*(.*)", re.DOTALL)
_SLOT = re.compile(r"<[^<>]*>")
_SUFFIXES = (".mp4", ".mkv", ".webm", ".MP4")


class Reader:
    """What reading one benchmark needs: its files, and exact complaints about its rows.

    Parameters
    ----------
    name : str
        The format.
    place : Path
        Folder, or question file.
    videos : Path or None
        Folder of clips, instead of the publisher's place.
    files : sequence of str
        Where the question file may be, first choice first.
    """

    def __init__(self, name: str, place: Path, videos: Path | None, files: Sequence[str]) -> None:
        self.name, self.videos = name, videos
        self.folder = place if place.is_dir() else place.parent
        self.file = place if place.is_file() else self._file(place, files)
        self.left_out: list[str] = []
        self._ids: Counter[str] = Counter()

    def _file(self, place: Path, files: Sequence[str]) -> Path:
        if not place.is_dir():
            raise MediaError("There is no such folder.", path=place, hint="Check the path.")
        for name in files:
            if (place / name).is_file():
                return place / name
        parquet = sorted(place.rglob("*.parquet"))
        if parquet:
            source = parquet[0].relative_to(place).as_posix()
            raise UsageError(
                f"{self.name} is here as Parquet, which OmniDrop does not read.",
                path=parquet[0],
                hint='In this folder, with pandas and pyarrow installed: python -c "import pandas;'
                f" pandas.read_parquet('{source}').to_json('{files[0]}', orient='records',"
                ' lines=True)"',
            )
        raise UsageError(
            f"This is no local copy of {self.name}.",
            path=place,
            hint=f"Expected is {' or '.join(files)} in it.",
        )

    def data(self) -> Any:
        """Return what the question file holds: JSON, or a list if it ends in .jsonl."""
        text = read_text(self.file)
        try:
            if self.file.suffix == ".jsonl":
                return [json.loads(line) for line in text.split("\n") if line.strip()]
            return json.loads(text)
        except ValueError as problem:
            raise UsageError(f"This is not JSON: {problem}.", path=self.file) from problem

    def rows(self, kind: type) -> Any:
        """Return the file's rows, once they are of the kind the publisher uses."""
        found = self.data()
        if not isinstance(found, kind):
            shape = "a list" if kind is list else "an object"
            raise UsageError(f"{self.name} is {shape} of questions.", path=self.file)
        return found

    def text(self, row: Any, name: str, where: str) -> str:
        """Return a text field, or say where it is missing."""
        value = row.get(name) if isinstance(row, dict) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{where}: {name} is missing.", path=self.file)
        return value.strip()

    def choices(self, row: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
        """Return lettered choices without their letters."""
        found = row.get(name)
        if not isinstance(found, list) or not 2 <= len(found) <= len(LETTERS):
            raise UsageError(f"{where}: {name} is no list of choices.", path=self.file)
        texts = [str(choice).strip() for choice in found]
        parts = [_LETTERED.fullmatch(text) for text in texts]
        if all(p and p[1] == letter for p, letter in zip(parts, LETTERS, strict=False)):
            return tuple(p[2].strip() for p in parts if p)
        return tuple(texts)

    def clip(self, *names: str) -> Path:
        """Return the first of some names that is a file; the first name if none is."""
        bases = [self.folder] if self.videos is None else [self.videos]
        if self.file.parent != self.folder and self.videos is None:
            bases.append(self.file.parent)
        options = [base / name for base in bases for name in names]
        if self.videos is not None:
            options += [self.videos / Path(name).name for name in names]
        return next((path for path in options if path.is_file()), options[0])

    def item(
        self, identity: str, answer: str, choices: tuple[str, ...], **more: Any
    ) -> Item | None:
        """Return a question; None, and a note, if its right choice is blank in the release."""
        self._ids[identity] += 1
        if self._ids[identity] > 1:
            identity = f"{identity}#{self._ids[identity]}"
        letter = answer.strip().strip("().").upper()
        if len(letter) == 1 and letter in LETTERS[: len(choices)]:  # even if "A" is a choice's text
            right = choices[LETTERS.index(letter)]
        else:
            right = chosen_answer(choices, answer.strip(), identity, self.file)
        if not right:
            self.left_out.append(identity)
            return None
        groups = {k: v for k, v in more.pop("groups", {}).items() if v}
        return Item(identity, answer=right, choices=choices, groups=groups, **more)

    def found(self, items: Sequence[Item | None], note: str = "") -> QuestionSet:
        """Return the set, its note saying what was left out."""
        if self.left_out:
            named = ", ".join(map(printable, self.left_out[:5]))
            more = f" and {len(self.left_out) - 5} more" if len(self.left_out) > 5 else ""
            note = f"{note} Left out, for they cannot be answered: {named}{more}.".strip()
        kept = tuple(item for item in items if item is not None)
        return QuestionSet(self.name, kept, self.file, note)


def worldsense(place: Path, videos: Path | None) -> QuestionSet:
    """Read WorldSense: an object of videos, each with task0, task1, …"""
    read = Reader("worldsense", place, videos, ["worldsense_qa.json"])
    items = []
    for video, about in read.rows(dict).items():
        if not isinstance(about, dict):
            raise UsageError(f"{video}: this is not an object.", path=read.file)
        for task, row in about.items():
            if not re.fullmatch(r"task\d+", task):
                continue
            where = f"{video}/{task}"
            items.append(
                read.item(
                    where,
                    read.text(row, "answer", where),
                    read.choices(row, "candidates", where),
                    video=read.clip(f"videos/{video}.mp4"),
                    question=read.text(row, "question", where),
                    category=read.text(row, "task_type", where),
                    groups={
                        "domain": about.get("domain", ""),
                        "abilities": row.get("task_domain", ""),
                        "sound": " and ".join(sorted(about.get("audio_class") or [])),
                    },
                )
            )
    return read.found(items)


def daily_omni(place: Path, videos: Path | None) -> QuestionSet:
    """Read Daily-Omni: a list of questions with capitalised names."""
    read = Reader("daily-omni", place, videos, ["qa.json"])
    items, asked = [], Counter[str]()
    for number, row in enumerate(read.rows(list), 1):
        where = f"Question {number}"
        video = read.text(row, "video_id", where)
        asked[video] += 1
        items.append(
            read.item(
                f"{video}/{asked[video]}",
                read.text(row, "Answer", where),
                read.choices(row, "Choice", where),
                video=read.clip(f"Videos/{video}/{video}_video.mp4"),
                question=read.text(row, "Question", where),
                category=read.text(row, "Type", where),
                groups={
                    "duration": str(row.get("video_duration") or ""),
                    "topic": str(row.get("video_category") or ""),
                },
            )
        )
    return read.found(items)


def avut(place: Path, videos: Path | None) -> QuestionSet:
    """Read AVUT: a list of questions with option_A to option_D."""
    files = ["AV_Human_data.json", "AV_Human_filtered_data.json", "AV_Gemini_data.json"]
    read = Reader("avut", place, videos, files)
    items = []
    for number, row in enumerate(read.rows(list), 1):
        where = f"Question {number}"
        identity = read.text(row, "QA_id", where)
        choices = tuple(str(row.get(f"option_{letter}") or "").strip() for letter in "ABCD")
        items.append(
            read.item(
                identity,
                read.text(row, "answer", where),
                choices,
                video=read.clip(read.text(row, "video_path", where)),
                question=read.text(row, "question", where),
                category=read.text(row, "task_type", where),
                groups={"video": str(row.get("video_type") or "")},
            )
        )
    return read.found(items)


def video_mme(place: Path, videos: Path | None) -> QuestionSet:
    """Read Video-MME: flat rows as on the hub, or videos with questions as on GitHub."""
    files = ["videomme/test.jsonl", "test.jsonl", "test.json", "output_test_template.json"]
    read = Reader("video-mme", place, videos, files)
    items = []
    for where, row in _flat(read.rows(list)):
        name = str(row.get("videoID") or row.get("video_id") or "")
        if not name:
            raise UsageError(f"{where}: videoID is missing.", path=read.file)
        items.append(
            read.item(
                read.text(row, "question_id", where),
                read.text(row, "answer", where),
                read.choices(row, "options", where),
                video=read.clip(*(f"{d}/{name}{s}" for d in ("data", "videos") for s in _SUFFIXES)),
                question=read.text(row, "question", where),
                category=read.text(row, "task_type", where),
                groups={
                    "duration": str(row.get("duration") or ""),
                    "domain": str(row.get("domain") or ""),
                },
            )
        )
    return read.found(items, "Asked without subtitles.")


def music_avqa(place: Path, videos: Path | None) -> QuestionSet:
    """Read Music-AVQA: templates with slots, and free answers of one word."""
    read = Reader(
        "music-avqa",
        place,
        videos,
        [
            "data/json_update/avqa-test.json",
            "data/json/avqa-test.json",
            "json/avqa-test.json",
            "avqa-test.json",
        ],
    )
    parts = ("MUSIC-AVQA-videos-Real", "MUCIS-AVQA-videos-Synthetic", "MUSIC-AVQA-videos-Synthetic")
    places = [f"{base}{part}" for base in ("", "videos/", "data/video/") for part in parts]
    items = []
    for number, row in enumerate(read.rows(list), 1):
        where = f"Question {number}"
        video = read.text(row, "video_id", where)
        if row.get("question_deleted"):
            continue
        kind = _inner(read, row, "type", where)
        items.append(
            read.item(
                f"{video}/{read.text(row, 'question_id', where)}",
                read.text(row, "anser", where),  # the publisher's spelling
                (),
                video=read.clip(*(f"{p}/{video}.mp4" for p in (*places, "videos"))),
                question=_filled(read, row, where),
                category=kind[0] if kind else None,
                groups={"kind": kind[1] if len(kind) > 1 else ""},
            )
        )
    return read.found(items)


def omnivideobench(place: Path, videos: Path | None) -> QuestionSet:
    """Read OmniVideoBench: a list of videos, each with its questions."""
    read = Reader("omnivideobench", place, videos, ["data.json", "data_example/data.json"])
    items = []
    for number, about in enumerate(read.rows(list), 1):
        video = read.text(about, "video", f"Video {number}")
        for count, row in enumerate(about.get("questions") or [], 1):
            where = f"{video}/{count}"
            items.append(
                read.item(
                    where,
                    read.text(row, "correct_option", where),
                    read.choices(row, "options", where),
                    video=read.clip(f"videos/{video}.mp4", f"{video}.mp4"),
                    question=read.text(row, "question", where),
                    category=read.text(row, "question_type", where),
                    groups={
                        "sound": str(row.get("audio_type") or ""),
                        "video": str(about.get("video_type") or ""),
                    },
                )
            )
    return read.found(items)


def _flat(rows: list[Any]) -> Rows:
    """Yield one row per question, with its video's fields, whichever way they are nested."""
    for number, row in enumerate(rows, 1):
        nested = row.get("questions") if isinstance(row, dict) else None
        if not isinstance(nested, list):
            yield f"Question {number}", row if isinstance(row, dict) else {}
            continue
        about = {name: value for name, value in row.items() if name != "questions"}
        for count, question in enumerate(nested, 1):
            yield f"Video {number}, question {count}", {**about, **question}


def _inner(read: Reader, row: dict[str, Any], name: str, where: str) -> list[str]:
    """Return a list that is written as JSON inside a string."""
    value = row.get(name)
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise UsageError(f"{where}: {name} is no list.", path=read.file)
    return [str(part) for part in found]


def _filled(read: Reader, row: dict[str, Any], where: str) -> str:
    """Return a question with its slots, like <Object>, filled in order."""
    question = read.text(row, "question_content", where)
    values = _inner(read, row, "templ_values", where)
    slots = len(_SLOT.findall(question))
    if slots != len(values):
        raise UsageError(
            f"{where}: {slots} slots in the question, {len(values)} values.", path=read.file
        )
    rest = iter(values)
    return _SLOT.sub(lambda _: next(rest), question)


#: Format name → what reads a folder of it.
LAYOUTS: dict[str, Callable[[Path, Path | None], QuestionSet]] = {
    "worldsense": worldsense,
    "daily-omni": daily_omni,
    "avut": avut,
    "video-mme": video_mme,
    "music-avqa": music_avqa,
    "omnivideobench": omnivideobench,
}
