"""The calls to MLflow, by a stand-in for its client; and the real one where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from tzk_plugin_mlflow.tracking import MARK, MLflow

from tzk_core import TzK, TzkError, build_flow, fit
from tzk_core.testing import check_observer, check_plugin
from tzk_core.training.observers import End, Logged, Start

DATA = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class Client:
    """The methods of MlflowClient that are called, with what they were called with."""

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.uri = tracking_uri
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def create_run(self, experiment_id: str, run_name: str | None = None) -> Any:
        run = f"run-{len(self.runs)}"
        self.runs[run] = {"experiment": experiment_id, "name": run_name, "status": "RUNNING", "metrics": []}
        self.runs[run] |= {"params": {}, "artifacts": []}
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self.runs[run_id]["metrics"] += metrics
        self.runs[run_id]["params"] |= {param.key: param.value for param in params}

    def log_artifact(self, run_id: str, local_path: str) -> None:
        self.runs[run_id]["artifacts"].append(Path(local_path).name)

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str) -> None:
        self.runs[run_id]["artifacts"].append(artifact_path)

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The one client of a stand-in for mlflow."""
    client, module = Client(), ModuleType("mlflow")
    module.MlflowClient = lambda tracking_uri=None: client  # type: ignore[attr-defined]
    module.entities = SimpleNamespace(Metric=Metric, Param=Param)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    yield client


def test_it_is_a_plugin_and_an_observer(client: Client) -> None:
    assert [spec.name for spec in check_plugin("tzk_plugin_mlflow")] == ["mlflow"]
    check_observer(MLflow)


def test_without_mlflow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(TzkError, match="pip install mlflow-skinny"):
        MLflow()


def test_the_metrics_are_the_history(client: Client) -> None:
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    history = fit(model, DATA, steps=6, log_every=2, observers=[MLflow(experiment="digits")])
    run = client.runs["run-0"]
    assert run["status"] == "FINISHED" and client.experiments == {"digits": run["experiment"]}
    assert run["params"]["steps"] == "6" and run["params"]["learning_rate"] == str(
        history.trainer.settings.learning_rate
    )
    bits = [(metric.step, metric.value) for metric in run["metrics"] if metric.key == "bits_per_dim/T"]
    assert bits == list(zip(history.step.tolist(), history.bits_per_dim.tolist(), strict=True))


def test_a_resumed_run_goes_on_in_the_same_one_and_ends_with_its_files(client: Client, tmp_path: Path) -> None:
    first = MLflow()
    first.on_start(Start(0, 4, tmp_path, {"steps": 4}))
    first.on_failure(KeyboardInterrupt())
    assert client.runs["run-0"]["status"] == "KILLED" and (tmp_path / MARK).read_text() == "run-0\n"

    again = MLflow()
    again.on_start(Start(2, 4, tmp_path, {"steps": 4}))
    assert client.runs["run-0"]["status"] == "RUNNING"
    again.on_log(Logged(4, ("step", "objective"), {"step": 4, "objective": float("nan"), "conditional/digit{1}": 2.0}))
    (tmp_path / "results.md").write_text("# Results\n")
    (tmp_path / "samples").mkdir()
    rows = [
        {"dataset": "a", "name": "prior", "kind": "prior", "bits_per_dim": 1.5},
        {"dataset": "a", "name": "histogram", "kind": "baseline", "bits_per_dim": 2.5},
    ]
    again.on_end(End(4, 3, tmp_path, {"rows": rows}))
    assert list(client.runs) == ["run-0"] and client.runs["run-0"]["status"] == "FINISHED"
    assert client.runs["run-0"]["artifacts"] == ["results.md", "samples"]
    assert client.runs["run-0"]["metrics"] == [
        Metric("conditional/digit_1_", 2.0, 0, 4),
        Metric("results/a/prior", 1.5, 0, 3),
    ]


def test_what_fails_is_failed(client: Client) -> None:
    observer = MLflow(name="mine")
    observer.on_start(Start(0, 4, None, {}))
    observer.on_failure(RuntimeError())
    assert (client.runs["run-0"]["status"], client.runs["run-0"]["name"]) == ("FAILED", "mine")


def test_the_real_one(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny, which is not installed")
    pytest.importorskip("sqlalchemy", reason="the tracking store needs SQLAlchemy, which mlflow-skinny leaves out")
    uri = f"sqlite:///{tmp_path / 'tracking.db'}"
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    history = fit(model, DATA, steps=4, log_every=2, observers=[MLflow(experiment="digits", uri=uri)])
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    measured = client.get_metric_history(run.info.run_id, "objective")
    assert [metric.step for metric in measured] == history.step.tolist() and run.info.status == "FINISHED"
