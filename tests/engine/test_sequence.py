"""The rows that are alive: text stays, and places follow whether or not text parts the clip."""

from __future__ import annotations

import pytest
import torch

from omnidrop.engine.sequence import Block, Sequence


def sequence(alive: torch.Tensor, av: torch.Tensor, head: int) -> Sequence:
    """Rows whose states and angles are their prompt indices, the first `head` of them apart."""

    def block(rows: torch.Tensor) -> Block:
        states = rows.float()[None, :, None]
        return Block(states, (states, states))

    first = block(alive[:head]) if head else None
    return Sequence(alive, av, first, block(alive[head:]))


@pytest.mark.parametrize("head", [0, 8])
@pytest.mark.parametrize("parted", [False, True])
def test_going_on_with_some_of_the_rows(head: int, parted: bool) -> None:
    alive = torch.tensor([0, 1, 4, 6, 7, 9, 10, 12, 15, 16])
    av = torch.tensor([2, 4, 5, 7]) if parted else torch.tensor([2, 3, 4, 5, 6, 7])
    text = torch.tensor([i for i in range(10) if i not in av.tolist()])
    rows = sequence(alive, av, head)
    rows.keep(text, av[[1, 3]], None if parted else 2)
    wanted = sorted([*text.tolist(), *av[[1, 3]].tolist()])
    assert rows.alive.tolist() == alive[wanted].tolist()
    assert rows.alive[rows.av].tolist() == alive[av[[1, 3]]].tolist()
    states = [b.hidden.flatten() for b in (rows.head, rows.tail) if b is not None]
    assert torch.cat(states).long().tolist() == rows.alive.tolist()
    assert len(rows.tail) == (2 if head else len(wanted))
