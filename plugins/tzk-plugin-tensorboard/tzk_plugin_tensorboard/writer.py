"""An observer that writes event files for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from tzk_core.report.pictures import pictures_in
from tzk_core.training.observers import Checkpoint, End, Logged, Observer, Start

STEP = "step"


class TensorBoard(Observer):
    """Writes the log as scalars, settings and results as text, and pictures as images.

    A resumed run goes on in the same folder: events after its step, as a kill may leave them, are purged.

    Args:
        folder: of the event files, in the run folder where it is relative. `fit` has no run folder: there it is
            relative to the current one.
        flush_seconds: between two writes to the disk.
    """

    def __init__(self, *, folder: str = "tensorboard", flush_seconds: int = 10) -> None:
        self.folder, self.flush_seconds = Path(folder), flush_seconds
        self._writer: SummaryWriter | None = None

    def on_start(self, start: Start) -> None:
        folder = (start.folder or Path()) / self.folder
        purged = start.step + 1 if start.step else None
        self._writer = SummaryWriter(folder, purge_step=purged, flush_secs=self.flush_seconds)
        rows = [f"| {name} | {value} |" for name, value in start.settings.items()]
        self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]), start.step)

    def on_log(self, logged: Logged) -> None:
        for column, value in logged.values.items():
            if column != STEP:
                self._open.add_scalar(column, value, logged.step)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._open.flush()

    def on_end(self, end: End) -> None:
        if end.folder is not None:
            table = end.folder / "results.md"
            if table.is_file():
                self._open.add_text("results", table.read_text(encoding="utf-8"), end.best_step)
            for picture in pictures_in(end.folder):
                self._add_image(end.folder / "samples" / picture.file, end.best_step)
        self._close()

    def on_failure(self, error: BaseException) -> None:
        self._close()

    @property
    def _open(self) -> SummaryWriter:
        if self._writer is None:
            raise RuntimeError("no event file is open: on_start comes first")
        return self._writer

    def _add_image(self, path: Path, step: int) -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._open.add_image(path.stem, pixels, step, dataformats="HWC")

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
