"""Compiles every kernel for sm_80 and sm_90, and the first in float64 too, on a machine that need not have a GPU.

Run by `test_kernels_ahead_of_time.py` in a process of its own; prints one line of JSON for each kernel.
"""

import json
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tzk_plugin_kernels import affine_symlog_triton, mixture_triton, tiled_triton

# Small blocks: they compile a tenth as long, and what is compiled is the same.
MAP = {"bound": 8.0, "limit": 30.0, "knee": 0.0}
KNEED = {"limit": 0.7, "knee": 1.0}
MIXTURE = {"bound": 6.0, "K": 2, "B": 128}
SEARCH = {"close": 0.05, "flat": -10.0, "iterations": 32}
MAPS = {
    "map": (affine_symlog_triton.mapping, MAP | {"INVERSE": False, "ROWS": 2, "COLUMNS": 128}),
    "map, inverse": (affine_symlog_triton.mapping, MAP | {"INVERSE": True, "ROWS": 1, "COLUMNS": 128}),
    "map, backward": (affine_symlog_triton.differentiating, MAP | {"INVERSE": False, "ROWS": 2, "COLUMNS": 128}),
    "map, backward of inverse": (
        affine_symlog_triton.differentiating,
        MAP | {"INVERSE": True, "ROWS": 2, "COLUMNS": 128},
    ),
}
TILED = {"bound": 8.0, "knee": 0.0, "M": 32, "N": 32, "K": 16}
KERNELS = {
    **MAPS,
    **{f"{name}, with a knee": (kernel, constants | KNEED) for name, (kernel, constants) in MAPS.items()},
    "tiled": (tiled_triton.convolving, TILED),
    "tiled, with a knee": (tiled_triton.convolving, TILED | {"knee": 1.0}),
    "mixture": (mixture_triton.mapping, MIXTURE),
    "mixture, backward": (mixture_triton.differentiating, MIXTURE),
    "mixture, inverse": (mixture_triton.inverting, MIXTURE | SEARCH),
}
SIZES = {"rows", "dims", "chunk", "count", "tiles", "n"}


def compiled(kernel: Any, constants: dict[str, Any], *, capability: int, double: bool) -> dict[str, Any]:
    """Compile a kernel: bytes of machine code and whether its matrix product is in TF32."""
    names = kernel.arg_names
    if "DOUBLE" in names:
        constants = constants | {"DOUBLE": double}
    pointer = "*fp64" if double else "*fp32"
    integers = SIZES - ({"rows"} if kernel is tiled_triton.convolving else set())
    types = {name: "i32" if name in integers else "fp32" if name == "tolerance" else pointer for name in names}
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, types, {(names.index(name),): value for name, value in constants.items()})
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    return {"bytes": len(binary.asm["cubin"]), "tf32": "tf32" in binary.asm["ptx"]}


for name, (kernel, constants) in KERNELS.items():
    for capability, double in ((80, False), (90, False), (90, True)):
        if "map" in name or not double:
            sizes = compiled(kernel, constants, capability=capability, double=double)
            print(json.dumps({"kernel": name, "sm": capability, "double": double} | sizes), flush=True)
