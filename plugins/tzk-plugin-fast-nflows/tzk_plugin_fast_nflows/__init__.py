"""Register faster implementations of nflows' layers, without importing torch."""

from tzk_core.plugins import Implementation, hookimpl

LAYERS = (
    ("affine-coupling-transform", "couplings:AffineCoupling", "features by slices"),
    ("additive-coupling-transform", "couplings:AdditiveCoupling", "features by slices, no scale"),
    (
        "piecewise-rational-quadratic-coupling-transform",
        "couplings:SplineCoupling",
        "features by slices, splines without boolean indexing",
    ),
    ("piecewise-rational-quadratic-cdf", "elements:SplineCDF", "splines without boolean indexing"),
    ("lu-linear", "linear:LU", "one triangular table, no cache"),
    ("one-by-one-convolution", "linear:Convolution", "one triangular table, no cache"),
    (
        "masked-affine-autoregressive-transform",
        "autoregressive:AffineAutoregressive",
        "inverse by one evaluation of the network",
    ),
    (
        "masked-piecewise-rational-quadratic-autoregressive-transform",
        "autoregressive:SplineAutoregressive",
        "inverse by one evaluation of the network, splines without boolean indexing",
    ),
)
"""The registered name of a layer, the class in its place, and how that computes."""


@hookimpl
def tzk_implementations() -> list[Implementation]:
    """The same classes on the CPU and on CUDA devices."""
    return [
        Implementation(f"{layer}-{device}", f"tzk_plugin_fast_nflows.{target}", summary, layer, device)
        for device in ("cpu", "cuda")
        for layer, target, summary in LAYERS
    ]
