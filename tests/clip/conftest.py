"""Files of every kind, each made once."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.clip.kinds import KINDS


@pytest.fixture(scope="session")
def kind(tmp_path_factory):
    """A file of a kind, made once."""

    @functools.cache
    def make(name: str) -> Path:
        function, file, rest = KINDS[name]
        return function(tmp_path_factory.mktemp(name) / file, **rest)

    return make
