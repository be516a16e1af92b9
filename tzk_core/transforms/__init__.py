"""Invertible maps.

Each is an nflows `Transform`, with `forward(inputs, context) -> outputs, logabsdet` and `inverse`.
"""
