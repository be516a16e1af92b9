"""Metrics: tables of results that a config asks for; one that fails is named, and everything else is written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from installed import install, python
from models import NO_TABLES, held_out, small

from tzk_core.config import ConfigError, config_from
from tzk_core.evaluation.classification import Classification
from tzk_core.evaluation.metrics import AskedMetric, Column, Evaluated, Metric
from tzk_core.evaluation.results import evaluate
from tzk_core.model import TzK
from tzk_core.plugins import Metric as MetricSpec
from tzk_core.plugins import Registry
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.loader import load_all
from tzk_core.report.table import markdown
from tzk_core.testing import NotConforming, check_metric

T = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PRESENCE = torch.eye(2, dtype=torch.float64)[torch.arange(30) % 2]


class Spread:
    """The standard deviation of log p(T), and a random number."""

    def __init__(self, unit: str = "nats") -> None:
        self.columns = (Column("spread", unit, "lower"), Column("chance", "share"))

    def rows(self, evaluated: Evaluated) -> Iterable[Mapping[str, float | str | None]]:
        yield {"spread": evaluated.scores.prior.std().item(), "chance": torch.rand(()).item(), "of": "log p(T)"}


class Wrong(Spread):
    """Fails in a way of its own."""

    def __init__(self, rows: Callable[[Evaluated], Any] | None = None, columns: Any = None) -> None:
        super().__init__()
        self.give = rows
        self.columns = self.columns if columns is None else columns

    def rows(self, evaluated: Evaluated) -> Any:
        return super().rows(evaluated) if self.give is None else self.give(evaluated)


def asked(name: str, make: Callable[[], Any], **arguments: Any) -> AskedMetric:
    return AskedMetric(name, "extra", "tzk-plugin-extra", "1.5", arguments, make)


def results(model: TzK | None = None, *metrics: AskedMetric, seed: int = 0) -> dict[str, Any]:
    model = model or small(("gaussian", "gaussian"))
    splits = [held_out(T[rows], PRESENCE[rows], ("k0", "k1"), dataset=name) for name, rows in HALVES.items()]
    tables = NO_TABLES | {"partitions": {"both": ["k0", "k1"]}}
    return evaluate(model, splits, {"a": T, "b": T}, **tables, importance_samples=4, metrics=metrics, seed=seed)


HALVES = {"a": slice(0, 20), "b": slice(20, 30)}


def raises(error: BaseException) -> Callable[[Evaluated], Any]:
    def rows(evaluated: Evaluated) -> Any:
        raise error

    return rows


def test_rows_are_by_split_with_unit_and_direction() -> None:
    model = small(("gaussian", "gaussian"))
    (entry,) = results(model, asked("spread", lambda: Spread("bits"), unit="bits"))["metrics"]
    assert entry["columns"] == [
        {"name": "spread", "unit": "bits", "better": "lower"},
        {"name": "chance", "unit": "share", "better": ""},
    ]
    keys = ("name", "plugin", "distribution", "version", "arguments")
    assert [entry[key] for key in keys] == ["spread", "extra", "tzk-plugin-extra", "1.5", {"unit": "bits"}]
    assert [(row["dataset"], row["split"]) for row in entry["rows"]] == [("a", "test"), ("b", "test")]
    for row in entry["rows"]:
        assert row["spread"] == pytest.approx(model.log_prob(T[HALVES[row["dataset"]]]).std().item())


def test_no_metric_changes_anything_else_and_chance_follows_the_seed() -> None:
    plain = results()
    measured = results(None, asked("one", Spread), asked("two", Spread))
    one, two = measured.pop("metrics")
    assert measured == plain
    assert [row["chance"] for row in one["rows"]] != [row["chance"] for row in two["rows"]], "a stream for each name"
    torch.rand(5)
    assert results(None, asked("two", Spread))["metrics"] == [two]
    assert results(None, asked("two", Spread), seed=1)["metrics"] != [two]


FAULTS = {
    "a raise": (raises(ValueError("no such thing")), "ValueError: no such thing"),
    "an exit": (raises(SystemExit(3)), "SystemExit: 3"),
    "no rows": (lambda _: None, "rows is expected to return several mappings; got NoneType"),
    "a single row": (lambda _: {"spread": 1.0}, "several mappings; got dict"),
    "no mapping": (lambda _: [3], "a row is expected as a mapping; got int"),
    "a tensor": (lambda _: [{"spread": torch.ones(())}], "column 'spread': a number or None is expected; got Tensor"),
    "a truth": (lambda _: [{"spread": True}], "column 'spread': a number or None is expected; got bool"),
    "a number without a column": (
        lambda _: [{"more": 2.0}],
        "'more' is no column, so that text is expected; got float",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_fails_is_named_and_everything_else_is_there(fault: str) -> None:
    rows, words = FAULTS[fault]
    plain = results(None, asked("spread", Spread))
    found = results(None, asked("wrong", lambda: Wrong(rows)), asked("spread", Spread))
    wrong, right = found["metrics"]
    assert words in wrong["error"] and wrong["rows"] == []
    assert [right] == plain["metrics"] and found["rows"] == plain["rows"]
    (note,) = found["notes"]
    assert note.startswith("The metric 'wrong' (plugin 'extra', tzk-plugin-extra 1.5) failed") and words in note
    assert note in markdown(found, "tzk eval").replace("\\", "")


@pytest.mark.parametrize(
    "columns",
    [(), [("a", "b", "higher")], [Column("a", "b", "best")], [Column("a", "b"), Column("a", "c")]],  # type: ignore[arg-type]
    ids=["none", "no Column", "no direction", "one name twice"],
)
def test_columns_that_are_none_are_a_fault_of_the_metric(columns: Any) -> None:
    (entry,) = results(None, asked("wrong", lambda: Wrong(columns=columns)))["metrics"]
    assert "columns are expected" in entry["error"]


def test_a_constructor_that_fails_is_a_fault_of_the_metric_and_an_interrupt_is_the_users() -> None:
    (entry,) = results(None, asked("wrong", lambda: 1 / 0))["metrics"]
    assert entry["error"] == "ZeroDivisionError: division by zero"
    with pytest.raises(KeyboardInterrupt):
        results(None, asked("wrong", lambda: Wrong(raises(KeyboardInterrupt()))))


def test_what_is_not_finite_is_none_and_a_dash() -> None:
    metric = asked("wrong", lambda: Wrong(lambda _: [{"spread": math.nan, "chance": math.inf}]))
    found = results(None, metric)
    assert [(row["spread"], row["chance"]) for row in found["metrics"][0]["rows"]] == [(None, None)] * 2
    json.dumps(found, allow_nan=False)
    section = markdown(found, "tzk eval").partition("## wrong")[2].partition("\n## ")[0]
    assert section.count("—") == 4


def test_the_table_has_texts_then_numbers_with_units_and_arrows() -> None:
    found = results(None, asked("spread", lambda: Spread("bits"), unit="bits"))
    text = markdown(found, "tzk eval")
    section = text.partition("## spread (unit = bits), of extra")[2].partition("\n## ")[0]
    header, _, first, *_ = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, first)]
    assert cells[0] == ["dataset", "split", "of", "spread, bits ↓", "chance, share"]
    assert cells[1][:3] == ["a", "test", "log p(T)"]
    assert float(cells[1][3]) == pytest.approx(found["metrics"][0]["rows"][0]["spread"], rel=1e-3)
    assert "↑: higher is better; ↓: lower is." in section


def test_the_core_s_own_classification_is_a_metric() -> None:
    found = results(None, asked("classification", Classification))
    (entry,) = found["metrics"]
    assert entry["rows"] == found["classification"] and len(entry["rows"]) == 2
    numbers = {column["name"] for column in entry["columns"]}
    assert numbers == {key for key in entry["rows"][0] if key not in ("partition", "dataset", "split")}


# --- asked for by a config


PLUGIN = """
    from tzk_core.plugins import Metric, hookimpl
    @hookimpl
    def tzk_metrics():
        return [Metric("spread", "tzk_spread_metric:Spread", "the spread of log p(T)")]
"""
METRIC = """
from tzk_core.evaluation.metrics import Column
class Spread:
    columns = (Column("spread", "nats", "lower"),)
    def __init__(self, power: float = 1.0, fail: bool = False):
        self.power, self.fail = power, fail
    def rows(self, evaluated):
        if self.fail:
            raise OSError("the disk is full")
        return [{"spread": evaluated.scores.prior.std().item() ** self.power}]
"""
CONFIG: dict[str, Any] = {
    "name": "points",
    "flow": {"layers": [{"type": "affine"}]},
    "datasets": [{"name": "two-moons", "train": 60, "validation": 20, "test": 20}],
    "training": {"steps": 2, "batch_size": 16},
}


def config_of(*metrics: Mapping[str, Any], parts: Registry) -> Any:
    return config_from({**CONFIG, "evaluation": {"metrics": list(metrics)}}, parts=parts)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(tmp_path, "tzk-plugin-spread", PLUGIN)
    (tmp_path / "tzk_spread_metric.py").write_text(METRIC)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_its_arguments_are_checked_like_those_of_any_part(site: Path) -> None:
    parts = Registry(load_all(BUILTIN, None, [str(site)]))
    assert [part.name for part in parts.all(MetricSpec)] == ["classification", "spread"]
    config = config_of({"type": "spread", "power": 2.0}, parts=parts)
    (table,) = config.evaluation.metrics
    assert table.arguments == {"power": 2.0, "fail": False}
    assert config_from(config.to_tables(), parts=parts) == config
    for metric, words in [
        ({"type": "spread", "powr": 2.0}, "takes no such argument; did you mean 'power'"),
        ({"type": "spread", "power": "two"}, "expected a number, got"),
        ({"type": "spred"}, "no metric is called 'spred'; did you mean 'spread'"),
        ({"power": 2.0}, "is required"),
    ]:
        with pytest.raises(ConfigError, match="evaluation.metrics") as raised:
            config_of(metric, parts=parts)
        assert words in str(raised.value)


@pytest.mark.slow
def test_a_run_has_it_in_its_results_and_eval_and_describe_know_it(site: Path) -> None:
    """In real processes, with a plugin that is installed."""
    (site / "c.toml").write_text(
        'name = "points"\n[flow]\n[[flow.layers]]\ntype = "affine"\n[[datasets]]\nname = "two-moons"\ntrain = 60\n'
        "validation = 20\ntest = 20\n[training]\nsteps = 2\nbatch_size = 16\n"
        '[[evaluation.metrics]]\ntype = "spread"\n[[evaluation.metrics]]\ntype = "spread"\nfail = true\n'
    )
    program = """
        import sys
        from pathlib import Path
        from click.testing import CliRunner
        from tzk_core.cli import main
        folder = Path({folder!r})
        for words in (["run", folder / "c.toml", "--out", folder / "run"], ["eval", folder / "run"],
                      ["describe", "spread"], ["plugins"]):
            result = CliRunner().invoke(main, [str(word) for word in words])
            assert result.exit_code == 0, result.output
            print(result.output)
    """
    ended = python(site, program.format(folder=str(site)))
    assert ended.returncode == 0, ended.stderr
    results = json.loads((site / "run" / "results.json").read_text())
    right, wrong = results["metrics"]
    assert right["rows"][0]["spread"] > 0 and right["distribution"] == "tzk-plugin-spread"
    assert wrong["error"] == "OSError: the disk is full"
    assert any("'spread' (plugin 'tzk_plugin_spread', tzk-plugin-spread 1.0) failed" in n for n in results["notes"])
    assert "## spread" in (site / "run" / "results.md").read_text()
    for words in ("spread, nats ↓", "spread: metric. the spread of log p(T)", "power", "metrics"):
        assert words in ended.stdout


# --- the conformance check


class Counting(Spread):
    calls = 0

    def rows(self, evaluated: Evaluated) -> Any:
        Counting.calls += 1
        return [{"spread": float(Counting.calls)}]


class FirstAlone(Spread):
    """Its rows depend on which split came before."""

    seen = ""

    def rows(self, evaluated: Evaluated) -> Any:
        self.seen = self.seen or evaluated.held_out.dataset
        return [{"spread": float(self.seen == evaluated.held_out.dataset)}]


def changing(change: Callable[[Evaluated], Any]) -> Metric:
    def rows(evaluated: Evaluated) -> Any:
        change(evaluated)
        return [{"spread": 1.0}]

    return Wrong(rows)


def moved(evaluated: Evaluated) -> None:
    next(evaluated.model.parameters()).add_(1.0)


REFUSED = {
    "a count of calls": (Counting, "the same each time"),
    "the first split alone": (FirstAlone, "should not depend on other splits"),
    "another model": (lambda: changing(moved), "leave the model as it was"),
    "training mode": (lambda: changing(lambda e: e.model.train()), "in evaluation mode"),
    "other observations": (lambda: changing(lambda e: e.held_out.T.zero_()), "leave the observations"),
    "gradients": (lambda: changing(lambda e: torch.set_num_threads(torch.get_num_threads() + 1)), "threads"),
    "knowledge that may be missing": (lambda: Wrong(lambda e: [{"spread": e.scores.conditional["a"]}]), "KeyError"),
    "a tensor": (lambda: Wrong(FAULTS["a tensor"][0]), "a number or None is expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_check_refuses_what_a_metric_may_not(name: str) -> None:
    make, words = REFUSED[name]
    threads = torch.get_num_threads()
    try:
        with pytest.raises(NotConforming, match=words):
            check_metric(make())
    finally:
        torch.set_num_threads(threads)


def test_the_check_passes_what_is_right() -> None:
    assert [row["dataset"] for row in check_metric(Wrong(lambda e: [{"spread": 1.0}]))] == ["first", "second"]
    rows = check_metric(Classification())
    assert [row["partition"] for row in rows] == ["both", "both"]
    check_metric(Classification(), (3,), None)
