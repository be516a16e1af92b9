"""Functions written as programs of torch.export and ONNX, and read back to compare their results."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from nflows.transforms.base import CompositeTransform, InverseTransform, Transform
from torch import Tensor, nn

from tzk_core import TzK
from tzk_core.errors import TzkError
from tzk_core.implementations import use_implementations
from tzk_plugin_export.decompositions import DECOMPOSITIONS
from tzk_plugin_export.functions import Function, InDouble, functions

FORMATS = ("pt2", "onnx")
TOLERANCE = 1e-5
"""How far results may be apart, relative to 1 + |result|; rounding in float32 is below it."""


def export(model: TzK, folder: Path, *, format: str, knowledge: str | None = None) -> dict[str, float]:
    """Write log_prob, encode and sample_from_noise into `folder`, each as a program, and compare their results.

    Layers take what plugins bring for the CPU first: nflows' own splines depend on values, and have no program.

    Returns:
        By file, the largest difference between program and model on another batch size, relative to 1 + |result|. A
            program of ONNX computes in float64, and is compared with the model in float64.

    Raises:
        TzkError: for what cannot be exported, with the layer; if a library is missing; if results differ.
    """
    if format not in FORMATS:
        raise TzkError(f"a format is one of {', '.join(FORMATS)}; got {format!r}")
    write, read = (_write_pt2, _read_pt2) if format == "pt2" else (_write_onnx, _read_onnx)
    model = model.cpu().eval().requires_grad_(False)  # noqa: FBT003 -- torch takes it by position
    use_implementations(model, "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "" if knowledge is None else f"{knowledge}-"
    others, differences = functions(model, knowledge, batch=5), {}
    if format == "onnx":
        others = {name: _in_double(function) for name, function in others.items()}
    for name, function in functions(model, knowledge).items():
        file = folder / f"{prefix}{name}.{format}"
        try:
            write(function, file)
        except TzkError:
            raise
        except Exception as error:
            file.unlink(missing_ok=True)
            raise TzkError(f"{name} cannot be exported to {format}: {_refusal(function, error, write)}") from error
        differences[file.name] = _difference(read(file), others[name])
        if not differences[file.name] <= TOLERANCE:
            what = f"{file}: its results differ from the model's by {differences[file.name]:.2g}"
            raise TzkError(f"{what}, expected at most {TOLERANCE:g}: a layer computes otherwise there; do not use it")
    return differences


def _program(function: Function) -> Any:
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in function.examples)
    with torch.no_grad():
        return torch.export.export(function.module, function.examples, dynamic_shapes=shapes)


def _write_pt2(function: Function, file: Path) -> None:
    torch.export.save(_program(function), file)


def _read_pt2(file: Path) -> Callable[..., Tensor]:
    module: Callable[..., Tensor] = torch.export.load(file).module()
    return module


def _write_onnx(function: Function, file: Path) -> None:
    function = _in_double(function)
    for library in ("onnx", "onnxscript"):
        _imported(library)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.onnx about itself
        torch.onnx.export(
            _program(function).run_decompositions(DECOMPOSITIONS),
            (),
            file,
            input_names=list(function.inputs),
            output_names=list(function.outputs),
            dynamo=True,
            external_data=False,
            verbose=False,
            optimize=False,  # it takes a product with 0.999998, as of a logit with alpha = 1e-6, for one with 1
        )


def _in_double(function: Function) -> Function:
    return function._replace(module=InDouble(function.module))


def _read_onnx(file: Path) -> Callable[..., Tensor]:
    session = _imported("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        values = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, values)[0])

    return run


def _imported(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise TzkError(f"the format 'onnx' needs {library} ({error}): pip install 'tzk-plugin-export[onnx]'") from error


@torch.no_grad()
def _difference(program: Callable[..., Tensor], function: Function) -> float:
    expected = function.module(*function.examples)
    actual = program(*function.examples)
    return float(((actual - expected).abs() / (1 + expected.abs())).max())


def _refusal(function: Function, error: Exception, write: Callable[[Function, Path], None]) -> str:
    """Why a function cannot be exported.

    It is the first layer that cannot by itself, if there is one.
    """
    with tempfile.TemporaryDirectory() as folder:
        for layer, inputs, inverse in _calls(function):
            alone = Function(_Alone(layer, inverse=inverse), (inputs,), ("x",), ("y", "logabsdet"))
            try:
                write(alone, Path(folder) / "layer")
            except Exception as its:
                way = "the inverse of layer" if inverse else "layer"
                return f"{way} {type(layer).__name__} has no program ({_first_line(its)})"
    return f"each of its layers can by itself; {_first_line(error)}"


def _first_line(error: Exception) -> str:
    """The first line of what an error says, of its cause where torch.onnx wraps that."""
    text = str(error.__cause__ or error).strip() or type(error).__name__
    return text.splitlines()[0]


class _Alone(nn.Module):
    """One layer, or its inverse, as a module."""

    def __init__(self, layer: Transform, *, inverse: bool) -> None:
        super().__init__()
        self.layer, self.inverse = layer, inverse

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer.inverse(x) if self.inverse else self.layer(x)


def _calls(function: Function) -> Iterator[tuple[Transform, Tensor, bool]]:
    """The layers that a function computes, one after the other.

    Each comes with its inputs and the direction.
    """
    flow: Any = function.module.flow
    inverse = function.inputs[0] == "noise"
    with torch.no_grad():
        values = function.examples[0]
        if inverse:
            values = flow.base.from_noise(values)
        for layer, backwards in _leaves(flow.transform, inverse=inverse):
            yield layer, values, backwards
            values = (layer.inverse(values) if backwards else layer(values))[0]


def _leaves(transform: Transform, *, inverse: bool) -> Iterator[tuple[Transform, bool]]:
    if isinstance(transform, InverseTransform):
        yield from _leaves(transform._transform, inverse=not inverse)
    elif isinstance(transform, CompositeTransform):
        parts = list(transform._transforms)
        for part in reversed(parts) if inverse else parts:
            yield from _leaves(part, inverse=inverse)
    else:
        yield transform, inverse
