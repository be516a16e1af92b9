"""Reports of plugins are written at the end of a run, which none can fail; a run says in words how good it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tzk_core.errors import Note
from tzk_core.plugins import Registered, Report
from tzk_core.report import words
from tzk_core.runs import reporting


def offer(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    """Have these functions registered as reports, by name."""

    def part(name: str) -> Registered:
        registered = Registered(Report(name, f"mine:{name}", "mine"), "mine", "tzk-plugin-mine", "1.0")
        object.__setattr__(registered, "load", lambda: functions[name])
        return registered

    parts = [part(name) for name in functions]
    monkeypatch.setattr(reporting, "registry", lambda: SimpleNamespace(all=lambda spec_type: parts))


def test_every_report_is_written_and_one_that_fails_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def good(folder: Path, experiment: object) -> Path:
        torch.manual_seed(7)
        return folder / f"good-{experiment}"

    def bad(folder: Path, experiment: object) -> Path:
        raise ZeroDivisionError("of mine")

    offer(monkeypatch, bad=bad, good=good)
    before = torch.get_rng_state()
    with pytest.warns(Note, match="'bad' of plugin 'mine' .* was not written, .* ZeroDivisionError: of mine"):
        files = reporting.write_reports(tmp_path, "e")  # type: ignore[arg-type]
    assert files == [tmp_path / "good-e"]
    assert torch.equal(before, torch.get_rng_state())


def prior(**more: Any) -> dict[str, Any]:
    return {"kind": "prior", "name": "prior", "dataset": "d", "count": 100, "bits_per_dim": 1.5} | more


def test_likelihood_is_reported_beside_the_baseline_and_the_best_published_figure_of_the_same_unit() -> None:
    rows = [
        prior(bits_per_pixel=2.0),
        {"kind": "baseline", "name": "histogram", "dataset": "d", "bits_per_dim": 3.0},
        {"kind": "published", "name": "A", "dataset": "d", "bits_per_pixel": 1.2},
        {"kind": "published", "name": "B", "dataset": "d", "bits_per_pixel": 1.1},
        {"kind": "published", "name": "C", "dataset": "other", "bits_per_pixel": 0.1},
    ]
    assert words.likelihood({"rows": rows}) == [
        "On d it takes 1.500 bits/dim (lower is better), 50 % fewer than a histogram (3.000); the best published "
        "beside it is B, 1.1 bits/pixel where this has 2.00."
    ]
    (few,) = words.likelihood({"rows": [prior(count=3)]})
    assert "3 test samples, too few to compare" in few
    (real,) = words.likelihood({"rows": [prior(log_prob_nats=-4.25)]})
    assert "log p(T) is -4.250 nats in the mean, in the unit of the data (higher is better)" in real
    first, second = words.likelihood({"rows": [prior(), prior(dataset="e")]})
    assert "is better" in first and "is better" not in second  # once is enough


def test_knowledge_is_reported_by_how_many_types_gain() -> None:
    entries = [{"name": "a", "gap_nats": 2.0}, {"name": "b", "gap_nats": -1.0}, {"name": "c", "gap_nats": None}]
    told = [{"partition": "all", "discriminator_accuracy": 0.875}]
    assert words.knowledge({"knowledge": entries, "classification": told}) == (
        "1 of 2 knowledge types are better than the prior on their own samples (the best: a, +2.0 nats); test samples "
        "are told apart: all in 88 %."
    )
    assert "a is better than the prior (+2.0 nats)" in words.knowledge({"knowledge": entries[:1]})
    both = [entries[0], {"name": "d", "gap_nats": 1.0}]
    assert words.knowledge({"knowledge": both}).startswith("Both knowledge types")
    worse = [{"name": name, "gap_nats": -1.0} for name in "ab"]
    assert words.knowledge({"knowledge": worse}).startswith("None of 2 knowledge types")
    assert words.knowledge({}) == ""


@pytest.mark.parametrize(
    ("value", "other", "text"),
    [(1.0, 2.0, "50 % fewer than"), (2.06, 2.0, "3.0 % more than"), (2.0, 2.0, "as many as"), (1.0, 0.0, "as many as")],
)
def test_figures_are_compared_in_per_cent(value: float, other: float, text: str) -> None:
    assert words.compared(value, other) == text


def test_names_are_listed_up_to_four() -> None:
    assert words.listed(["a"]) == "a" and words.listed(["a", "b"]) == "a and b"
    assert words.listed(list("abcdef")) == "a, b, c and 3 more"
