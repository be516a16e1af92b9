"""Samples that several processes score are those that one scores, to the bit."""

from __future__ import annotations

import pytest
import torch
from in_processes import in_processes
from in_threads import in_threads
from test_dequantisations import NAMES, model_and_held

from tzk_core.evaluation.likelihood import EvaluationSplit, Scores
from tzk_core.evaluation.scoring import score
from tzk_core.model import TzK
from tzk_core.world import ALONE, World

CHUNK = 7
"""Of 48 samples: six chunks, and one of 6 samples."""


def scores(world: World = ALONE, chunk: int = CHUNK, *, of: tuple[TzK, EvaluationSplit] | None = None) -> Scores:
    model, held = of or model_and_held(draws=2, times=3)
    return score(model, held, 4, everywhere=NAMES[:1], chunk=chunk, world=world)


def plain(scored: Scores) -> dict[str, torch.Tensor]:
    """All values of scores, by name."""
    tables = {"rows": scored.rows, "conditional": scored.conditional, "presence": scored.presence}
    values = {f"{table} {name}": value for table, own in tables.items() for name, value in own.items()}
    return values | {"prior": scored.prior}


def scored_in(world: World, chunk: int) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The values, and what each process sent of itself."""
    return plain(scores(world, chunk)), world.of_each(f"rank {world.rank}")


@pytest.mark.slow
@pytest.mark.parametrize(("count", "chunk"), [(2, CHUNK), (3, CHUNK), (3, 30)], ids=["two", "three", "fewer chunks"])
def test_scores_of_several_processes_are_those_of_one(count: int, chunk: int) -> None:
    expected = plain(scores(chunk=chunk))
    for answer in in_processes(count, scored_in, chunk):
        assert answer is not None
        found, names = answer
        assert names == [f"rank {rank}" for rank in range(count)]
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_each_scores_chunks_of_its_own_and_both_have_all() -> None:
    of = model_and_held(draws=2, times=3)
    both, sent = in_threads(2, lambda world: plain(scores(world, of=of)))
    assert [sorted(own) for own in sent[0]] == [[0, 2, 4, 6]] * 2
    assert [sorted(own) for own in sent[1]] == [[1, 3, 5]] * 2
    expected = plain(scores(of=of))
    for found in both:
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
