"""Batches of evidence in a temporary file: memory does not grow with the images."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from typing import IO

import torch

from tzk_plugin_outside.evidence import Evidence

IN_MEMORY = 2**22
"""Bytes in memory before a file is made; the scores of a few thousand images are less."""

_TENSORS = ("log_prob", "log_ratio", "log_presence", "code_length", "dose")
_LENGTH = 8


class Spool:
    """Files, rows and evidence of batches, in the order in which they were added.

    The file has no name where the system allows that, and is gone with the process.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 -- it is open as long as this is

    def add(self, files: list[str], rows: list[int | None], evidence: Evidence) -> None:
        """Append one batch.

        Raises:
            OSError: where there is no room for it.
        """
        content = io.BytesIO()
        tensors = {name: getattr(evidence, name) for name in _TENSORS}
        torch.save({"files": files, "rows": rows, "knowledge": list(evidence.knowledge), **tensors}, content)
        self._file.seek(0, io.SEEK_END)
        self._file.write(content.tell().to_bytes(_LENGTH, "little") + content.getvalue())

    def __iter__(self) -> Iterator[tuple[list[str], list[int | None], Evidence]]:
        place = 0
        while True:
            self._file.seek(place)
            length = int.from_bytes(self._file.read(_LENGTH), "little")
            if not length:
                return
            batch = torch.load(io.BytesIO(self._file.read(length)), weights_only=True)
            place += _LENGTH + length
            evidence = Evidence(tuple(batch["knowledge"]), *(batch[name] for name in _TENSORS))
            yield batch["files"], batch["rows"], evidence
