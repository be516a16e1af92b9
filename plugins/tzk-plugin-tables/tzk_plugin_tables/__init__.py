"""Register `table` and the published tables, without importing torch or pandas."""

from tzk_core.plugins import Dataset, hookimpl


@hookimpl
def tzk_datasets() -> list[Dataset]:
    """Data sets for `[[datasets]]`."""
    return [
        Dataset(
            name="table",
            target="tzk_plugin_tables.table:Table",
            summary="your own table of numbers: csv, parquet or feather, labels and characteristics by column",
        ),
        *(
            Dataset(name=name, target=f"tzk_plugin_tables.suite:{name.capitalize()}", summary=summary)
            for name, summary in (
                ("power", "POWER, 6 columns, of the tables that flows are compared on"),
                ("gas", "GAS, 8 columns, of the tables that flows are compared on"),
                ("hepmass", "HEPMASS, 21 columns, of the tables that flows are compared on"),
                ("miniboone", "MINIBOONE, 43 columns, of the tables that flows are compared on"),
                ("bsds300", "BSDS300, 63 columns, of the tables that flows are compared on"),
            )
        ),
    ]
