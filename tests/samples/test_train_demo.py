"""The whole recipe with tiny settings: every stage, resuming, export, and an answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipe.answering import load_demo
from recipe.checkpoint import read
from train_demo import STAGES, Recipe, Run, StageMissing, train

import omnidrop

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
pytestmark = pytest.mark.slow
TRAINING = ("towers", "audio", "vision", "language", "mixed", "joint")


def tiny() -> Recipe:
    few = Recipe().taste(5)
    small = {"clips": 2, "questions": 6, "min_s": 5.0, "max_s": 5.5}
    return replace(
        few,
        towers=replace(few.towers, clips=2, grids=32),
        audio=replace(few.audio, clips=2),
        vision=replace(few.vision, grids=32, steps=13),
        language=replace(few.language, **small),
        mixed=replace(few.mixed, **small),
        joint=replace(few.joint, **small),
        clips=4,
    )


def quiet(text: str) -> None:
    return None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("run")
    return out, train(Run(out, tiny(), log=quiet))


def test_every_stage_lowers_its_loss(trained) -> None:
    _, courses = trained
    assert tuple(courses) == TRAINING
    for stage, course in courses.items():
        assert course.last < course.first, stage


def test_stages_continue_from_the_step_of_the_stage_before(trained) -> None:
    _, courses = trained
    begins = {stage: (course.begin, course.step) for stage, course in courses.items()}
    assert begins == {
        "towers": (0, 5),
        "audio": (5, 10),
        "vision": (5, 13),
        "language": (0, 5),
        "mixed": (5, 10),
        "joint": (0, 5),
    }


def test_each_tower_is_changed_only_by_its_own_stage(trained) -> None:
    out, _ = trained
    before = read(out / "towers.pt")["whole"]
    for stage, name in (("audio", "audio.proj.weight"), ("vision", "vision.merger.mlp.0.weight")):
        after = read(out / f"{stage}.pt")["whole"]
        assert not torch.equal(after[name], before[name])
        other = {"audio": "vision.", "vision": "audio."}[stage]
        assert all(torch.equal(after[k], v) for k, v in before.items() if k.startswith(other))


def test_a_second_run_skips_complete_stages(trained, tmp_path: Path) -> None:
    out = Path(shutil.copytree(trained[0], tmp_path / "run"))
    (out / "joint.pt").unlink()
    again = train(Run(out, tiny(), log=quiet), tuple(s for s in STAGES if s != "export"))
    assert {s for s, c in again.items() if c.first is not None} == {"joint"}
    assert train(Run(out, tiny(), log=quiet), ("joint",))["joint"].first is None


def test_the_exported_folder_has_the_trained_weights_and_answers(trained) -> None:
    out, _ = trained
    _, trunk, _ = load_demo(out / "demo-model")
    state = read(out / "joint.pt")["trunk"]
    name = "text.layers.15.mlp.up_proj.weight"
    assert torch.equal(trunk.state_dict()[name], state[name].bfloat16().float())
    names = ("piano", "violin", "drums")
    with omnidrop.load(str(out / "demo-model"), device="cpu").open(SAMPLES / "duet.mp4") as clip:
        answer = clip.ask("Which instrument plays first?", choices=names)
    assert answer.text in names
    assert sum(c.probability for c in answer.choices) == pytest.approx(1)


def test_training_with_the_cut_writes_separate_checkpoints(trained) -> None:
    out, _ = trained
    assert {o.cut_share for o in (Recipe().language, Recipe().mixed, Recipe().joint)} == {0.0}
    run = Run(out, tiny(), cut=True, log=quiet)
    assert all(o.cut_share > 0.5 for o in (run.recipe.language, run.recipe.mixed, run.recipe.joint))
    course = train(run, ("language",))["language"]
    assert (course.begin, course.step) == (0, 5)
    assert (out / "language-cut.pt").exists()


def test_a_stage_without_its_input_names_the_stage_to_run(tmp_path: Path) -> None:
    for stage, needed in (("audio", "towers"), ("pool", "audio"), ("mixed", "language")):
        with pytest.raises(StageMissing, match=f"--stage {needed}"):
            train(Run(tmp_path, tiny(), log=quiet), (stage,))


def test_another_seed_changes_every_stage() -> None:
    first, other = Recipe(), Recipe().seeded(3)
    assert other.seed == 3
    assert all(getattr(other, s).seed == getattr(first, s).seed + 3 for s in TRAINING)


def test_the_card_states_the_steps_of_the_recipe() -> None:
    recipe = Recipe()
    run = json.loads((SAMPLES / "results" / "training.json").read_text(encoding="utf-8"))
    assert {stage["stage"]: stage["steps"] for stage in run["stages"]} == {
        "towers": str(recipe.towers.steps),
        "audio": str(recipe.audio.steps - recipe.towers.steps),
        "vision": str(recipe.vision.steps - recipe.towers.steps),
        "language": str(recipe.language.steps),
        "pool": "-",
        "mixed": str(recipe.mixed.steps - recipe.language.steps),
        "joint": str(recipe.joint.steps),
    }
    said = {stage["stage"]: stage["what"] for stage in run["stages"]}
    assert f"{recipe.clips} clips" in said["pool"]
    assert f"{100 * recipe.mixed.real_share:.0f} %" in said["mixed"]
    assert f"{100 * recipe.joint.real_share:.0f} %" in said["joint"]
