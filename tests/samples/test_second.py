"""The second question set: made apart from AVSynth, from seeds, with right answers."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import second
from avsynth.wordings import SEEN, UNSEEN
from second import asking, files, pixels, scenes, tones

from omnidrop.evaluation.sets import read_set
from omnidrop.models.locations import demo_folder
from omnidrop.models.world import read_world

FOLDER = Path(second.__file__).parent
SEEDS = range(40)


def asked(seed: int) -> tuple[scenes.Scene, list[asking.Ask]]:
    scene = scenes.draw(seed)
    return scene, asking.asks(scene, np.random.default_rng(seed))


def test_it_shares_no_code_with_avsynth() -> None:
    for path in (*FOLDER.glob("*.py"), FOLDER.parent / "make_second.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert not [n for n in names if n.split(".")[0] in ("avsynth", "recipe", "torch")]


def test_a_seed_always_gives_the_same_scene_picture_sound_and_questions() -> None:
    assert files.questions(7, 3) == files.questions(7, 3)
    assert scenes.draw(7) == scenes.draw(7) != scenes.draw(8)
    scene = scenes.draw(7)
    assert (pixels.picture(scene, 1.0) == pixels.picture(scene, 1.0)).all()
    assert (files.sound(scene) == files.sound(scene)).all()


def test_the_set_is_small_and_balanced() -> None:
    lines = files.questions(0)
    assert len(lines) == 60 == len({line["id"] for line in lines})
    assert len({line["video"] for line in lines}) == 20
    needs = [line["category"] for line in lines]
    assert all(needs.count(part) >= 8 for part in ("sound", "picture", "both"))
    kinds = [line["groups"]["kind"] for line in lines]  # type: ignore[index]
    assert set(kinds) == set(asking.FORMS)
    assert max(map(kinds.count, kinds)) <= 5
    assert all(line["answer"] in line["choices"] for line in lines)  # type: ignore[operator]


def test_its_wordings_are_not_avsynths_and_use_only_words_that_the_demo_model_knows() -> None:
    theirs = {form for forms in (*SEEN.values(), *UNSEEN.values()) for form in forms}
    theirs = {form.replace("{x}", "{a}").replace("{y}", "{b}") for form in theirs}
    mine = {form for forms in asking.FORMS.values() for form in forms}
    assert not mine & theirs
    world = read_world(demo_folder())
    assert world is not None
    for line in files.questions(0, 60):
        assert world.unknown(line["question"], *line["choices"]) == ()  # type: ignore[misc,arg-type]


def timelines(scene: scenes.Scene) -> tuple[list[str | None], list[str | None], list[str | None]]:
    """What plays, which figure is shown and in which paint, at every hundredth of a second."""
    moments = np.arange(0, scene.seconds, 0.01)

    def at(events: tuple, name: str) -> list[str | None]:
        found = [[getattr(e, name) for e in events if e.begin <= t < e.stop] for t in moments]
        assert max(map(len, found)) == 1
        return [names[0] if names else None for names in found]

    return (
        at(scene.parts, "instrument"),
        at(scene.figures, "figure"),
        at(scene.figures, "paint"),
    )


def together(one: list[str | None], other: list[str | None], name: str) -> str:
    """The name of `other` that is there for most of the time of `name`."""
    seen = [b for a, b in zip(one, other, strict=True) if a == name and b]
    return max(set(seen), key=seen.count)


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_agree_with_what_happens_at_each_moment(seed: int) -> None:
    scene, found = asked(seed)
    heard, shown, painted = timelines(scene)
    lines = {"instrument": heard, "shape": shown, "colour": painted}
    for ask in found:
        what, rest = ask.kind.split(" ", 1)
        row = list(dict.fromkeys(name for name in lines[what] if name))
        if rest == "first":
            assert ask.answer == row[0]
        elif rest == "last":
            assert ask.answer == row[-1]
        elif rest == "next":
            assert row[row.index(ask.names[0]) + 1] == ask.answer
        elif rest == "previous":
            assert row[row.index(ask.names[0]) - 1] == ask.answer
            assert row[0] != ask.names[0]
        elif rest == "order":
            first, other = (row.index(name) for name in ask.names)
            assert ask.answer == ("before" if first < other else "after")
        elif rest == "heard":
            assert ask.answer == ("yes" if ask.names[0] in row else "no")
        elif ask.kind == "shape by colour":
            assert ask.answer == together(painted, shown, ask.names[0])
        elif ask.kind == "colour of shape":
            assert ask.answer == together(shown, painted, ask.names[0])
        else:
            other = lines[rest.split()[1]]
            assert ask.answer == together(other, lines[what], ask.names[0])
        for begin, stop in ask.spans:
            assert 0 <= begin < stop <= scene.seconds


@pytest.mark.parametrize("seed", SEEDS)
def test_events_are_long_enough_and_no_name_occurs_twice(seed: int) -> None:
    scene = scenes.draw(seed)
    for events in (scene.parts, scene.figures):
        assert all(event.stop - event.begin >= 1.45 for event in events)
        assert len({repr(event).split("'")[1] for event in events}) == len(events)
    assert len({figure.paint for figure in scene.figures}) == len(scene.figures)


@pytest.mark.parametrize("seed", range(0, 12, 3))
def test_the_picture_shows_each_figure_in_its_colour_and_nothing_after_it(seed: int) -> None:
    scene = scenes.draw(seed)
    under = pixels.ground(scene)
    plain = np.clip(np.rint(under), 0, 255).astype(np.uint8)
    for figure in scene.figures:
        middle = (figure.begin + figure.stop) / 2
        image = pixels.picture(scene, middle, under)
        changed = (image != plain).any(2)
        inside = pixels.cover(figure, middle, scene.frame) == 1
        assert inside.any()
        assert not (inside & ~changed).any()
        median = np.median(image[inside], axis=0)
        nearest = min(pixels.PAINT, key=lambda p: float(abs(median - pixels.PAINT[p]).sum()))
        assert nearest == figure.paint
        edge = np.ones(inside.shape, bool)
        edge[2:-2, 2:-2] = False
        assert not (changed & edge).any(), "the figure leaves the frame"


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("circle", math.pi * 0.95**2),
        ("ring", math.pi * (1.02**2 - 0.58**2)),
        ("square", 1.72**2),
        ("cross", 2 * 0.6 * 2 - 0.6**2),
        ("triangle", 3 * math.sqrt(3) / 4 * 1.15**2),
        ("star", 5 * 1.12 * 1.12 * 0.43 * math.sin(math.pi / 5)),
    ],
)
def test_figures_have_the_area_of_what_they_are_called(name: str, area: float) -> None:
    figure = scenes.Figure(name, "red", 0.0, 1.0, (0.5, 0.5), (0.0, 0.0), 0.0, 0.25)
    covered = pixels.cover(figure, 0.5, (200, 200)).sum() / 50**2
    assert covered == pytest.approx(area, rel=0.02)


def test_every_part_is_heard_in_its_time_and_not_outside() -> None:
    scene = next(s for s in map(scenes.draw, SEEDS) if s.parts[1].begin - s.parts[0].stop > 0.08)
    sound = files.sound(scene).mean(0)

    def level(begin: float, stop: float) -> float:
        part = sound[round(begin * tones.RATE) : round(stop * tones.RATE)]
        return float(np.sqrt((part**2).mean()))

    gap = level(scene.parts[0].stop + 0.01, scene.parts[1].begin - 0.01)
    assert gap < 0.002
    for part in scene.parts:
        assert level(part.begin, part.stop) > 10 * gap


@pytest.mark.parametrize("name", scenes.INSTRUMENTS)
def test_passages_last_as_long_as_asked_for(name: str) -> None:
    played = tones.passage(name, 1.5, np.random.default_rng(1))
    assert played.shape == (72_000,)
    assert np.abs(played).max() == pytest.approx(1)
    assert np.isfinite(played).all()


@pytest.mark.parametrize("name", [n for n in scenes.INSTRUMENTS if n != "drums"])
def test_notes_have_the_pitch_that_was_asked_for(name: str) -> None:
    wave = tones.note(name, 330.0, 0.8, np.random.default_rng(1))[4800:]
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    hertz = np.fft.rfftfreq(len(wave), 1 / tones.RATE)
    half = 165.0 if name == "organ" else 330.0  # a drawbar sounds an octave lower
    peaks = hertz[spectrum > 0.1 * spectrum.max()]
    offset = np.abs(peaks / half - np.round(peaks / half))
    assert (offset < 0.05).all()


def test_a_question_of_two_timelines_is_asked_only_where_the_overlap_is_plain() -> None:
    part = scenes.Part("piano", 0.0, 4.0)
    paint = ("red", (0.5, 0.5), (0.0, 0.0), 0.0, 0.2)

    def figure(name: str, begin: float, stop: float) -> scenes.Figure:
        return scenes.Figure(name, paint[0], begin, stop, *paint[1:])  # type: ignore[arg-type]

    long, brief = figure("circle", 0.0, 3.6), figure("ring", 3.6, 6.0)
    assert asking._only_one(part, (long, brief)) == long
    half = (figure("circle", 0.0, 2.9), figure("ring", 3.0, 6.0))
    assert asking._only_one(part, half) is None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("second")
    command = [sys.executable, FOLDER.parent / "make_second.py", "--out", folder, "--clips", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"12 questions: {folder / 'questions.jsonl'}\n"
    return folder


@pytest.mark.slow
def test_the_script_writes_clips_and_a_file_that_eval_reads(made: Path) -> None:
    found = read_set(made / "questions.jsonl")
    assert len(found.items) == 12
    assert len(found.videos) == 4
    for seed, path in enumerate(found.videos):
        scene = scenes.draw(seed)
        with av.open(str(path)) as box:
            video, audio = box.streams.video[0], box.streams.audio[0]
            assert (video.width, video.height) == scene.frame
            assert video.codec_context.name == "h264"
            assert audio.codec_context.name == "opus"
            frames = [f.to_ndarray(format="rgb24") for f in box.decode(video)]
        assert len(frames) == round(scene.seconds * pixels.RATE)
        wanted = pixels.picture(scene, 1.0).astype(int)
        assert np.abs(frames[pixels.RATE] - wanted).mean() < 6


@pytest.mark.slow
def test_the_demo_model_recognises_what_it_shows(made: Path) -> None:
    import omnidrop

    model = omnidrop.load("demo")
    right = 0
    for item in read_set(made / "questions.jsonl").items:
        with model.open(item.video) as clip:
            answer = clip.ask(item.question, method=omnidrop.get_method("none"))
        right += answer.text == item.answer
    assert right >= 9  # of 12; by chance about 3
