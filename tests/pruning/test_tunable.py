"""What a method offers to be calibrated: its own fields, with values that it accepts."""

from __future__ import annotations

import pytest

from omnidrop.errors import UsageError
from omnidrop.pruning.registry import get_method, methods
from omnidrop.testing.simulate import clip_of


@pytest.mark.parametrize("name", sorted(methods()))
def test_values_are_settings_of_the_method(name):
    tokens, known = clip_of(400), get_method(name).settings()
    for field, values in get_method(name).tunable().items():
        assert field in known
        assert field not in ("budget", "cache")
        assert len(values) == len({str(value) for value in values}) > 1
        reached = 0
        for value in values:
            try:
                get_method(name, budget=0.5, **{field: value}).plan(tokens, 16)
                reached += 1
            except UsageError:  # of another field too, or a budget out of reach
                continue
        assert reached > 0
