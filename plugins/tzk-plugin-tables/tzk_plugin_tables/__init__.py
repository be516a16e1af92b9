"""Register the data set `table`, without importing torch or pandas."""

from tzk_core.plugins import Dataset, hookimpl


@hookimpl
def tzk_datasets() -> list[Dataset]:
    """Data sets for `[[datasets]]`."""
    return [
        Dataset(
            name="table",
            target="tzk_plugin_tables.table:Table",
            summary="your own table of numbers: csv, parquet or feather, labels and characteristics by column",
        )
    ]
