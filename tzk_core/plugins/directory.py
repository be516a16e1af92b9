"""Where parts are that people ask for by a plain name.

It is text for messages, of which nothing else depends.
"""

from __future__ import annotations

from collections.abc import Collection

from tzk_core.plugins.specs import Dataset, FlowRecipe, Spec

_TABLES, _BASELINES, _GLOW = "tzk-plugin-tables", "tzk-plugin-baselines", "tzk-plugin-glow"

_PARTS: dict[tuple[type[Spec], str], str] = {
    (Dataset, "table"): _TABLES,
    (Dataset, "omniglot"): "tzk-plugin-omniglot",
    **{
        (FlowRecipe, name): _BASELINES
        for name in ("nice", "real-nvp", "maf", "made-mog", "maf-mog", "rq-nsf-coupling", "rq-nsf-autoregressive")
    },
    **{(FlowRecipe, name): _GLOW for name in ("glow", "multiscale")},
}
_ALIASES: dict[tuple[type[Spec], str], str] = {
    (Dataset, name): "table" for name in ("csv", "tsv", "parquet", "feather", "arrow", "pandas", "dataframe")
} | {(FlowRecipe, "nsf"): "rq-nsf-coupling", (FlowRecipe, "realnvp"): "real-nvp"}


def elsewhere(spec_type: type[Spec], name: str, installed: Collection[str]) -> str:
    """The end of a message: a part's name, and the distribution to install.

    "" if neither is known.
    """
    called = _ALIASES.get((spec_type, name), name)
    distribution = _PARTS.get((spec_type, called))
    if distribution is None:
        return ""
    rename = "" if called == name else f"; write {called!r}"
    return (
        rename if distribution in installed else f"{rename}; it comes with {distribution!r}: pip install {distribution}"
    )
