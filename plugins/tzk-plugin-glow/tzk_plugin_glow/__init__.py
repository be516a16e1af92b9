"""Register recipes, their layers and the optimiser `muon`, without importing torch."""

from tzk_core.plugins import FlowLayer, FlowRecipe, Optimizer, hookimpl


@hookimpl
def tzk_flow_layers() -> list[FlowLayer]:
    """Layers for `[[flow.layers]]`."""
    return [
        FlowLayer(name, f"tzk_plugin_glow.{target}", summary)
        for name, target, summary in (
            ("actnorm", "actnorm:ActNorm", "a scale and shift of each channel, started from data (Glow)"),
            ("pointwise-convolution", "convolution:PointwiseConvolution", "an invertible 1x1 convolution (Glow)"),
            ("image-coupling", "coupling:Coupling", "couplings of images: affine, mixtures of logistics, splines"),
            ("grey-levels", "lattice:GreyLevels", "the CDF of grey levels, or of a spline, for every element"),
            ("variational-dequantisation", "dequantisation:Dequantisation", "learned noise in grey levels (Flow++)"),
        )
    ]


@hookimpl
def tzk_flow_recipes() -> list[FlowRecipe]:
    """Whole flows for `[flow] recipe`."""
    return [
        FlowRecipe("glow", "tzk_plugin_glow.glow:glow", "multi-scale image flow, mixture-of-logistics couplings"),
        FlowRecipe("multiscale", "tzk_plugin_glow.multiscale:multiscale", "grey levels, lattice by lattice; couplings"),
    ]


@hookimpl
def tzk_optimizers() -> list[Optimizer]:
    """An optimiser for `[training] optimizer`."""
    summary = "orthogonal steps for the large matrices of the flow's networks, Adam for all else (Jordan 2024)"
    return [Optimizer("muon", "tzk_plugin_glow.muon:MuonWithAdam", summary)]
