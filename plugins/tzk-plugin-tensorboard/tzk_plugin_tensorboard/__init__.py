"""Register the observer `tensorboard`, without importing torch or TensorBoard."""

from tzk_core.plugins import Observer, hookimpl


@hookimpl
def tzk_observers() -> list[Observer]:
    """Observers for `[[observers]]`."""
    return [
        Observer(
            name="tensorboard",
            target="tzk_plugin_tensorboard.writer:TensorBoard",
            summary="The log as curves in TensorBoard, with results and pictures at the end",
        )
    ]
