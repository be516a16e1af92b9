"""Register fused implementations of flow layers, without importing torch."""

from tzk_core.plugins import Implementation, hookimpl


@hookimpl
def tzk_implementations() -> list[Implementation]:
    """Implementations on CUDA devices and, with TZK_KERNELS=torch, on the CPU."""
    return [
        Implementation(f"{name}-{device}", f"tzk_plugin_kernels.{target}", summary, layer, device)
        for device in ("cuda", "cpu")
        for name, target, layer, summary in (
            ("affine-symlog", "layers:AffineSymLog", "affine symlog", "affine map, SymLog and log-determinant in one"),
            (
                "tiled-affine-symlog",
                "layers:TiledAffineSymLog",
                "tiled-convolution affine symlog",
                "affine map, SymLog and log-determinant as the end of the tiled convolution",
            ),
            ("mixture-coupling", "coupling:FusedCoupling", "image-coupling", "a mixture of logistics in one"),
        )
    ]
