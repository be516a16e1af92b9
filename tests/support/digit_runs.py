"""Runs on drawn digits, for what looks at the evidence of a whole model."""

from __future__ import annotations

from pathlib import Path

from commands import output_of

CONFIG = """
name = "digits"
pictures = { draw = [] }
flow = { steps = 2, tile = 4 }
datasets = [{ name = "digits", type = "glyph-digits", test = 60 }]
training = { batch_size = 64, initialisation = 128 }
evaluation = { importance_samples = 2 }

[[knowledge]]
name = "digit-{label}"
type = "gaussian"
hidden = 8
present = { dataset = "digits", label = "each" }
"""


def digits_run(folder: Path, *, train: int, validation: int, steps: int) -> Path:
    """The folder of a run with a knowledge type for each digit, trained for some steps on images of 16 x 16."""
    (folder / "digits.toml").write_text(CONFIG)
    sizes = [f"datasets.digits.train={train}", f"datasets.digits.validation={validation}", f"training.steps={steps}"]
    output_of("run", folder / "digits.toml", "--out", folder / "run", *sizes)
    return folder / "run"
