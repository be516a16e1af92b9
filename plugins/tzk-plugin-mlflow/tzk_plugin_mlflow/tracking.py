"""An observer that makes a training a run of MLflow."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from typing import Any

from tzk_core.errors import TzkError
from tzk_core.training.observers import End, Logged, Observer, Start

MARK = "mlflow-run-id"
"""The file of a run folder that names its run of MLflow, so that a resumed one goes on in it."""

ARTIFACTS = ("config.toml", "run.json", "metrics.csv", "results.json", "results.md")


class MLflow(Observer):
    """Logs settings as parameters, the log as metrics, and results and pictures as artifacts.

    An interrupted run is KILLED in MLflow, one that fails FAILED. A resumed run goes on in the same run of MLflow.

    Args:
        experiment: of MLflow, to log to; its own default without one.
        uri: of the tracking server or folder; by default as MLFLOW_TRACKING_URI or MLflow itself has it.
        name: of the run; the run folder's by default.

    Raises:
        TzkError: if MLflow is not installed.
    """

    def __init__(self, *, experiment: str = "", uri: str = "", name: str = "") -> None:
        try:
            mlflow = importlib.import_module("mlflow")  # here, since importing it takes seconds
        except ImportError as error:
            raise TzkError(f"the observer 'mlflow' needs MLflow ({error}): pip install mlflow-skinny") from error
        self._client = mlflow.MlflowClient(tracking_uri=uri or None)
        self._metric, self._param = mlflow.entities.Metric, mlflow.entities.Param
        self.experiment, self.name, self._run = experiment, name, ""

    def on_start(self, start: Start) -> None:
        earlier = _marked(start.folder) if start.step else ""
        if earlier:
            self._run = earlier
            self._client.set_terminated(self._run, "RUNNING")
            return
        name = self.name or (start.folder.name if start.folder else "")
        self._run = self._client.create_run(self._experiment_id(), run_name=name or None).info.run_id
        if start.folder is not None:
            (start.folder / MARK).write_text(self._run + "\n", encoding="utf-8")
        params = [self._param(key, str(value)) for key, value in start.settings.items()]
        self._client.log_batch(self._run, params=params)

    def on_log(self, logged: Logged) -> None:
        moment = round(1000 * float(logged.values.get("seconds", 0)))
        self._log({key: value for key, value in logged.values.items() if key != "step"}, moment, step=logged.step)

    def on_end(self, end: End) -> None:
        figures = {
            f"results/{row['dataset']}/{row['name']}": row["bits_per_dim"]
            for row in end.results.get("rows", ())
            if row.get("bits_per_dim") is not None and row["kind"] not in ("baseline", "published")
        }
        self._log(figures, 0, step=end.best_step)
        if end.folder is not None:
            for file in (end.folder / name for name in ARTIFACTS):
                if file.is_file():
                    self._client.log_artifact(self._run, str(file))
            if (end.folder / "samples").is_dir():
                self._client.log_artifacts(self._run, str(end.folder / "samples"), "samples")
        self._client.set_terminated(self._run, "FINISHED")

    def on_failure(self, error: BaseException) -> None:
        if self._run:
            self._client.set_terminated(self._run, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    def _log(self, values: dict[str, Any], moment: int, *, step: int) -> None:
        metrics = [
            self._metric(_allowed(key), float(value), moment, step)
            for key, value in values.items()
            if math.isfinite(value)
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def _experiment_id(self) -> str:
        name = self.experiment or "Default"
        known = self._client.get_experiment_by_name(name)
        return known.experiment_id if known else self._client.create_experiment(name)


def _marked(folder: Path | None) -> str:
    """The run of MLflow that a run folder was logged to; "" without one."""
    file = folder / MARK if folder else None
    return file.read_text(encoding="utf-8").strip() if file and file.is_file() else ""


def _allowed(key: str) -> str:
    """A name as MLflow takes them: letters, digits, and _-./: and spaces."""
    return re.sub(r"[^\w\-./: ]", "_", key)
