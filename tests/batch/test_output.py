"""The file of answers: whole lines, a full disk, one writer, and what it knows."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from omnidrop.batch.copies import write_copy
from omnidrop.batch.keys import Setup
from omnidrop.batch.output import DONE, AnswersFile, Shard, StreamAnswers, read_answers
from omnidrop.batch.records import Keys
from omnidrop.errors import OutputError, UsageError

SETUP = Setup({"method": {"budget": 0.3}, "system": None})


def row(name: str, key: str = "k", error: str | None = None, setup: str = "", **extra) -> dict:
    return {
        "schema": "omnidrop.batch/1",
        "id": name,
        "key": key,
        "setup": setup or SETUP.key,
        "error": error,
        "cause": error,
        **extra,
    }


def keys(key: str) -> Keys:
    return Keys(key, SETUP.key)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


class Full:
    """A disk with room for so many bytes."""

    def __init__(self, stream, room: int) -> None:
        self._stream, self._room = stream, room

    def write(self, data) -> int:
        part = bytes(data)[: self._room]
        if not part:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._room -= len(part)
        return self._stream.write(part)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def test_a_full_disk_leaves_no_half_line(path):
    with AnswersFile(path) as answers:
        answers.add(row("1"))
        whole = path.read_bytes()
        stream = answers._stream
        answers._stream = Full(stream, 20)
        with pytest.raises(OutputError, match="disk is full") as raised:
            answers.add(row("2"))
    assert raised.value.exit_code == 7
    assert path.read_bytes() == whole
    with AnswersFile(path, ["1", "2"]) as answers:
        assert answers.state("1", keys("k")) == DONE
        answers.add(row("2"))
    assert [line["id"] for line in read_answers(path)] == ["1", "2"]


def test_stdout_on_a_full_disk():
    class Stdout:
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="disk is full"):
        StreamAnswers(Stdout()).add(row("1"))


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits")
def test_a_limit_on_the_size_of_files_ends_like_a_full_disk(path):
    code = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from omnidrop.batch.output import AnswersFile
        from omnidrop.errors import OutputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            with AnswersFile(Path(sys.argv[1])) as answers:
                for number in range(100):
                    answers.add({"schema": "omnidrop.batch/1", "id": str(number), "key": "k",
                                 "setup": "s", "error": None, "text": "x" * 300})
        except OutputError as problem:
            print(problem.what)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "cannot be written" in done.stdout
    found = list(read_answers(path))
    assert 5 < len(found) < 100
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_half_line_is_cut_off(path, cut):
    with AnswersFile(path) as answers:
        answers.add(row("1"))
        answers.add(row("2"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:-cut])
    with AnswersFile(path) as answers:
        assert path.read_bytes() == lines[0]
        answers.add(row("3"))
    assert [line["id"] for line in read_answers(path)] == ["1", "3"]


@pytest.mark.parametrize("text", ["my notes", "my notes\n", '{"id": 1}\n', "[]\n", "{}"])
def test_a_file_of_something_else_is_not_touched(path, text):
    path.write_text(text)
    with pytest.raises(UsageError, match="is not an answer"), AnswersFile(path):
        pass
    assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_first_line_has_the_settings_and_others_are_refused(path):
    with AnswersFile(path) as answers:
        answers.check(SETUP)
        answers.add(row("1"))
        answers.add(row("2"))
    first, second = read_answers(path)
    assert first["settings"] == SETUP.settings
    assert "settings" not in second
    other = Setup({"method": {"budget": 0.2}, "system": None})
    with AnswersFile(path) as answers, pytest.raises(UsageError) as raised:
        answers.check(other)
    assert raised.value.what == "method.budget is 0.2, but 0.3 in this file's answers."
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    with AnswersFile(path) as answers, pytest.raises(UsageError, match="other settings"):
        answers.check(other)


def test_a_row_is_known_by_key_and_id_and_a_renamed_one_by_its_key(path):
    with AnswersFile(path) as answers:
        answers.add(row("old", "k1"))
        answers.add(row("2", "k2", error="broken"))
        answers.add(row("twin", "k3"))
    with AnswersFile(path, ["new", "2", "twin", "twin too"]) as answers:
        assert answers.state("new", keys("k1")) == DONE
        assert answers.state("newer", keys("k1")) is None  # one line stands for one row
        assert answers.state("2", keys("k2")) == "broken"
        assert answers.state("2", keys("another")) is None
        assert answers.state("twin", keys("k3")) == DONE
        assert answers.state("twin too", keys("k3")) is None  # a row of its own


def test_a_failure_that_was_asked_again_is_dropped_at_the_end(path):
    with AnswersFile(path) as answers:
        answers.check(SETUP)
        answers.add(row("1", error="broken"))
        answers.add(row("2"))
    path.chmod(0o640)
    with AnswersFile(path) as answers:
        answers.add(row("1", text="mended"))
        assert len(list(read_answers(path))) == 3
    found = list(read_answers(path))
    assert [line["id"] for line in found] == ["2", "1"]
    assert [line["error"] for line in found] == [None, None]
    assert found[0]["settings"] == SETUP.settings
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in path.parent.iterdir()] == [path.name]


LOCKED = """
import sys
from pathlib import Path
from omnidrop.batch.output import AnswersFile
with AnswersFile(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks")
def test_a_lock_ends_with_its_process_however_that_ends(path):
    other = subprocess.Popen(
        [sys.executable, "-c", LOCKED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"locked\n"
    with pytest.raises(UsageError, match=f"process {other.pid} on "), AnswersFile(path):
        pass
    other.kill()
    other.wait()
    with AnswersFile(path):
        pass
    assert not list(path.parent.glob(".*"))


def test_shards_have_files_of_their_own_and_know_each_other(path):
    one, two = Shard(1, 2), Shard(2, 2)
    assert [shard.output(path).name for shard in (one, two)] == [
        "answers.1of2.jsonl",
        "answers.2of2.jsonl",
    ]
    assert [one.has(i) for i in range(4)] == [True, False, True, False]
    with AnswersFile(path, (), one) as first, AnswersFile(path, (), two) as second:
        first.add(row("1", "k1"))
        second.add(row("2", "k2"))
        with pytest.raises(UsageError, match="divided in one way"), AnswersFile(path):
            pass
        with pytest.raises(UsageError, match="one way"), AnswersFile(path, (), Shard(3, 3)):
            pass
    with AnswersFile(path, ["1", "2"]) as answers:
        assert [answers.state(*known) for known in (("1", keys("k1")), ("2", keys("k2")))] == [
            DONE,
            DONE,
        ]
    with pytest.raises(UsageError, match="counted from 1"):
        Shard(0, 2)


def test_a_copy_has_a_column_for_every_name_and_one_type_in_each(path, tmp_path):
    with AnswersFile(path) as answers:
        answers.check(SETUP)
        answers.add(row("1", text='a "b",\nc', number=1, mixed=1, flag=True))
        answers.add(row("2", number=2.5, mixed="x", more=[1, {"a": None}]))
    table = tmp_path / "t.csv"
    assert write_copy(path, table) == 2
    import csv

    first, second = csv.DictReader(table.open(encoding="utf-8", newline=""))
    assert first["text"] == 'a "b",\nc'
    assert (first["number"], second["number"]) == ("1.0", "2.5")
    assert (first["mixed"], second["mixed"]) == ("1", '"x"')
    assert (first["more"], json.loads(second["more"])) == ("", [1, {"a": None}])
    assert not {"schema", "key", "setup", "settings"} & set(first)
    parquet = pytest.importorskip("pyarrow.parquet")
    write_copy(path, tmp_path / "t.parquet")
    found = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [line["number"] for line in found] == [1.0, 2.5]
    assert [line["flag"] for line in found] == [True, None]
    with pytest.raises(UsageError, match="CSV, TSV or Parquet"):
        write_copy(path, tmp_path / "t.xls")
