"""Register the data set `omniglot`, without importing torch."""

from tzk_core.plugins import Dataset, hookimpl


@hookimpl
def tzk_datasets() -> list[Dataset]:
    """Data sets for `[[datasets]]`."""
    return [
        Dataset(
            name="omniglot",
            target="tzk_plugin_omniglot.omniglot:Omniglot",
            summary="Handwritten characters of 50 alphabets (Lake et al. 2015), ink bright, resized",
        )
    ]
