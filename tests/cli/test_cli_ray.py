"""`omnidrop batch --ray`: its options reach the cluster, and are refused without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidrop.batch import run as batch_run
from omnidrop.batch.ray import RayOptions
from omnidrop.errors import UsageError
from omnidrop_cli.options.ray import RayFlags


def test_options_of_a_cluster_go_with_one() -> None:
    assert RayFlags().options() is None
    found = RayFlags("auto", ray_actors=3, ray_cpus=2.0, ray_gpus=0.5).options()
    assert found == RayOptions("auto", 3, 2.0, 0.5)
    found = RayFlags("auto", ray_readers=0, ray_read_limit=1e9).options()
    assert found == RayOptions("auto", readers=0, read_limit=1e9)
    for given in (
        {"ray_actors": 1},
        {"ray_cpus": 1.0},
        {"ray_gpus": 0.0},
        {"ray_readers": 0},
        {"ray_read_limit": 1e9},
    ):
        with pytest.raises(UsageError, match="go with --ray"):
            RayFlags(**given)
    with pytest.raises(UsageError, match="0 or more"):
        RayFlags("local", ray_cpus=-1.0)


def test_they_reach_the_run(run, clip: Path, tmp_path: Path, monkeypatch) -> None:
    asked: list[RayOptions | None] = []

    def note(rows, out, options, hooks, *, tally):
        asked.append(options.ray)
        return tally

    monkeypatch.setattr(batch_run, "run", note)
    words = ["batch", clip, "-q", "What plays?", "--out", tmp_path / "a.jsonl"]
    assert run(*words)[0] == 0
    assert run(*words, "--ray", "head:6379", "--ray-actors", 2)[0] == 0
    assert run(*words, "--ray", "auto", "--ray-readers", 4, "--ray-read-limit", "1GB")[0] == 0
    assert asked == [
        None,
        RayOptions("head:6379", 2),
        RayOptions("auto", readers=4, read_limit=1e9),
    ]
    code, _, error = run(*words, "--ray-actors", 2)
    assert (code, "Add --ray local" in error) == (2, True)
