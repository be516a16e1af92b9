"""A short campaign finds nothing lost, no traceback and no silent change, and a campaign notices when there is one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import campaign  # noqa: E402
from campaign_tries import LOST, SILENT, TRACEBACK  # noqa: E402

from tzk_core import TzkError  # noqa: E402


@pytest.mark.slow
def test_a_short_campaign_finds_nothing(tmp_path: Path) -> None:
    tallies = campaign.campaign(0.7, 1, only=[], folder=tmp_path)
    assert set(tallies) == set(campaign.GOALS)
    for name, tally in tallies.items():
        assert tally.tries > 0 and not any(tally.failed.values()), (name, tally.examples)


def test_what_fails_is_counted_by_kind() -> None:
    def raising(error: BaseException) -> str:
        raise error

    tally = campaign.Tally()
    for trial in (lambda: "", lambda: SILENT, lambda: LOST, lambda: raising(TzkError("a sentence"))):
        campaign.attempt(tally, "it", trial, may_refuse=True)
    campaign.attempt(tally, "it", lambda: raising(TzkError("a sentence")), may_refuse=False)
    campaign.attempt(tally, "it", lambda: raising(KeyError("x")), may_refuse=True)
    assert tally.tries == 6 and tally.refused == 2 and len(tally.examples) == 4
    assert tally.failed == {LOST: 2, TRACEBACK: 1, SILENT: 1}
