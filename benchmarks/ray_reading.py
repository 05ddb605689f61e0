"""A batch on Ray with clips read by the actors, and by tasks of their own; and what sending costs.

Copies of one clip lie on two nodes that are started on this machine, each with as many cores by
name as `--cores`. What is compared: every core an actor that reads its own clips; one actor that
does so by itself; one actor for which the other cores read.

    python benchmarks/ray_reading.py [--clips 16] [--seconds 10] [--size 1920 1080] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from omnidrop.batch.answering import AnswerOptions
from omnidrop.batch.ray import RayOptions
from omnidrop.batch.rows import Row
from omnidrop.batch.run import RunHooks, RunOptions, run
from omnidrop.clip.clip import open_clip
from omnidrop.clip.options import ClipOptions
from omnidrop.clip.read_clip import ReadClip
from omnidrop.engine.model import load
from omnidrop.options import LoadOptions
from omnidrop.testing import media

LOAD = LoadOptions(model="demo", device="cpu")


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the median seconds of some work, and what it gave."""
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = work()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent), found


def sending(path: Path, options: ClipOptions, repeats: int) -> dict[str, float]:
    """Measure what it takes to read one clip, to send it, and to encode it there."""
    model = load(LOAD)
    spec = model.adapter.media_spec

    def read() -> ReadClip:
        with open_clip(path, options, spec) as clip:
            found = ReadClip.of(clip)
        assert found is not None
        return found

    def encoded(source: Any) -> Callable[[], None]:
        def work() -> None:
            with model.open(source, options) as session:
                session.encode()

        return work

    reading, found = timed(read, repeats)
    dumping, sent = timed(lambda: pickle.dumps(found, protocol=5), repeats)
    loading, again = timed(lambda: pickle.loads(sent), repeats)
    return {
        "bytes": len(sent),
        "read": reading,
        "pickle": dumping,
        "unpickle": loading,
        "encode_sent": timed(encoded(again), repeats)[0],
        "read_and_encode": timed(encoded(path), repeats)[0],
    }


def answered(rows: list[Row], out: Path, options: RunOptions) -> dict[str, float]:
    """Run a batch; return its seconds, and those from its first record to its last."""
    told: list[float] = []
    began = time.perf_counter()
    hooks = RunHooks(on_record=lambda *_: told.append(time.perf_counter()))
    tally = run(rows, out, options, hooks)
    assert tally.answered == len(rows), dict(tally.causes)
    return {"whole": time.perf_counter() - began, "first_to_last": told[-1] - told[0]}


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--size", type=int, nargs=2, default=[1920, 1080])
    parser.add_argument("--max-pixels", type=int, default=None)
    parser.add_argument("--cores", type=int, default=1, help="of each of the two nodes")
    parser.add_argument("--store", type=int, default=500, help="MB of each node's object store")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    import ray
    from ray.cluster_utils import Cluster

    cores = 2 * options.cores
    sides = {
        f"{cores} actors that read": {"actors": cores, "cpus": 1.0, "readers": 0},
        "1 actor that reads": {"actors": 1, "cpus": 1.0, "readers": 0},
        f"1 actor, {cores - 1} that read for it": {"actors": 1, "cpus": 1.0},
    }
    sampling = ClipOptions(max_pixels=options.max_pixels)
    answer = AnswerOptions(load=LOAD, clip=sampling, anyway=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    node = {"num_cpus": options.cores, "object_store_memory": options.store * 1_000_000}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        first = media.mp4(
            folder / "0.mp4",
            seconds=options.seconds,
            size=tuple(options.size),
            options={"preset": "veryfast"},
        )
        for number in range(1, options.clips):
            os.link(first, folder / f"{number}.mp4")
        rows = [
            Row(str(number), folder / f"{number}.mp4", "Is there a piano?")
            for number in range(options.clips)
        ]
        cost = sending(first, sampling, 3)
        os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
        cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        try:
            cluster.add_node(**node)
            for turn in range(options.rounds):
                for name, given in sides.items():
                    on_ray = RayOptions(cluster.address, **given)  # type: ignore[arg-type]
                    out = folder / f"{turn} {name}.jsonl"
                    found[name].append(answered(rows, out, RunOptions(answer=answer, ray=on_ray)))
        finally:
            ray.shutdown()
            cluster.shutdown()
    print(f"one clip: {cost['bytes'] / 1e6:.1f} MB to send")
    for name in ("read", "pickle", "unpickle", "encode_sent", "read_and_encode"):
        print(f"  {name.replace('_', ' '):<16} {cost[name]:8.3f} s")
    print(f"\n{options.clips} clips{'':<28}{'whole':>8}{'first to last':>16}, s, best of rounds")
    for name, runs in found.items():
        best = {key: min(each[key] for each in runs) for key in ("whole", "first_to_last")}
        print(f"{name:<36}{best['whole']:8.1f}{best['first_to_last']:16.1f}")
    print(json.dumps({"sending": cost, "runs": found}))


if __name__ == "__main__":
    main()
