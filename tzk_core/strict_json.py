"""JSON that any reader takes: no nan and no infinity."""

from __future__ import annotations

import json


def json_text(value: object) -> str:
    """Strict JSON, which knows neither nan nor infinity: these are null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    is_lost = isinstance(value, float) and (value != value or value in (float("inf"), float("-inf")))
    return None if is_lost else value
