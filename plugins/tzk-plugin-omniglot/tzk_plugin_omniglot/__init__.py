"""Registers the data set `omniglot`; light, so that listing plugins costs no import of torch."""

from tzk_core.plugins import Dataset, hookimpl


@hookimpl
def tzk_datasets() -> list[Dataset]:
    """The data sets of this plugin."""
    return [
        Dataset(
            name="omniglot",
            target="tzk_plugin_omniglot.omniglot:Omniglot",
            summary="Handwritten characters of 50 alphabets (Lake et al. 2015), ink bright, resized",
        )
    ]
