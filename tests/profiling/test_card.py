"""Would a card take it, and with which settings: the mildest that do."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnidrop import LoadOptions, OmniDrop
from omnidrop.errors import BudgetError
from omnidrop.profiling.card import Room, Setup, Start, described, room
from omnidrop.profiling.estimate import estimate
from omnidrop.testing import media

START = Start(None, 0.5, 400_000, 100_000, 2.0, 60.0, 600.0)


def peak(setup: Setup) -> int:
    """Return 100 of weights, 25 in 4 bits, and 1000 of everything else."""
    weights = 25 if setup.quantize else 100
    budget = setup.budget or START.budget
    pixels = (setup.max_pixels or START.area or 0) / 400_000
    rate, span = (setup.fps or 2.0) / 2, (setup.seconds or 600) / 600
    return round(weights + 1000 * budget * pixels * rate * span)


def found(memory: float, peak_of=peak) -> Room:
    return room(memory, START, peak_of)


def test_what_fits_needs_no_proposal() -> None:
    assert found(1000) == Room(1000, 600, True)
    assert not found(600).fits  # a tenth is left for buffers


def test_four_bits_come_first_if_they_are_enough() -> None:
    first, second = found(590).proposals
    assert (first.options, first.peak) == (("--4bit",), 525)
    assert second.options == ("--budget 0.3",)


def test_what_loses_less_is_used_up_before_what_loses_more() -> None:
    (first,) = found(100).proposals  # 100 of weights never fit
    assert first.options == ("--4bit", "--budget 0.1", "--max-pixels 200000")
    assert first.peak <= 90
    smaller, _ = (
        found(35).proposals if len(found(35).proposals) == 2 else (*found(35).proposals, None)
    )
    assert smaller.options[:3] == ("--4bit", "--budget 0.1", "--max-pixels 100000")
    assert smaller.options[3] == "--fps 0.5"
    assert len(smaller.options) == 4


def test_a_span_is_given_by_its_end() -> None:
    def heavy(setup: Setup) -> int:
        return round(25 + 10 * (setup.seconds or 600))

    assert found(1000, heavy).proposals[0].options[-1] == "--end 2:00"


def test_budgets_out_of_reach_are_passed_over() -> None:
    def reaches(setup: Setup) -> int:
        if setup.budget is not None and setup.budget < 0.3:
            raise BudgetError("no", reachable=(0.3, 1.0))
        return peak(setup)

    assert [each.options for each in found(300, reaches).proposals] == [
        ("--4bit", "--budget 0.3", "--max-pixels 280000"),
        ("--budget 0.3", "--max-pixels 200000"),
    ]


def test_what_can_never_fit_is_said() -> None:
    hopeless = found(20)
    assert hopeless.proposals == ()
    assert described(hopeless)[-1] == "No setting makes it fit; take a smaller model."


@pytest.mark.slow
def test_a_real_estimate_proposes_what_fits(tmp_path: Path) -> None:
    path = media.mp4(tmp_path / "a.mp4", size=(640, 360), seconds=20, fps=4)
    asked = {"model": LoadOptions(model="7b"), "tflops": 1.0}
    roomy = estimate(path, "What is there?", [OmniDrop(budget=0.5)], memory=80e9, **asked)
    assert roomy.room is not None
    assert roomy.room.fits
    tight = estimate(path, "What is there?", [OmniDrop(budget=0.5)], memory=12e9, **asked)
    assert tight.room is not None
    assert not tight.room.fits
    assert tight.room.proposals[0].options == ("--4bit",)
    # In bf16 the weights alone do not fit.
    assert len(tight.room.proposals) == 1
    assert tight.room.peak == pytest.approx(roomy.room.peak)


def test_no_setup_is_weighed_twice() -> None:
    seen = []

    def counted(setup: Setup) -> int:
        seen.append(setup)
        return peak(setup)

    assert len(found(35, counted).proposals) == 1
    assert len(seen) == len(set(seen)) + 1  # what was asked for, before anything is changed
