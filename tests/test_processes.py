"""What the processes of a command do in turn."""

from __future__ import annotations

import pytest
from in_threads import in_threads

from tzk_core import TzkError
from tzk_core.world import ALONE, World


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_each_computes_its_share_and_all_have_all_in_order(size: int, count: int) -> None:
    computed: dict[int, list[int]] = {rank: [] for rank in range(size)}

    def squares(world: World) -> list[int]:
        return list(world.in_turn(count, lambda number: (computed[world.rank].append(number), number**2)[1]))

    together, _ = in_threads(size, squares)
    assert together == [[number**2 for number in range(count)]] * size
    assert computed == {rank: list(range(rank, count, size)) for rank in range(size)}
    assert squares(ALONE) == together[0]


def test_the_first_error_in_order_is_raised_in_all() -> None:
    def failing(world: World) -> list[object]:
        def compute(number: int) -> int:
            if number in (4, 5):
                raise TzkError(f"number {number}")
            return number

        found: list[object] = []
        try:
            found += [0]
            for value in world.in_turn(8, compute):
                found.append(value)
        except TzkError as error:
            found.append(str(error))
        return found

    together, _ = in_threads(3, failing)
    assert together == [[0, 0, 1, 2, 3, "number 4"]] * 3 and failing(ALONE) == together[0]
