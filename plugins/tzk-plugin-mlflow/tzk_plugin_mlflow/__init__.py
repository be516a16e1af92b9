"""Register the observer `mlflow`, without importing torch or MLflow."""

from tzk_core.plugins import Observer, hookimpl


@hookimpl
def tzk_observers() -> list[Observer]:
    """Observers for `[[observers]]`."""
    return [
        Observer(
            name="mlflow",
            target="tzk_plugin_mlflow.tracking:MLflow",
            summary="Settings, the log, results and pictures as a run of MLflow",
        )
    ]
