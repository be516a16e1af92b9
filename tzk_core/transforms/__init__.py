"""Invertible maps, each an nflows `Transform`: `forward(inputs, context) -> outputs, logabsdet` and `inverse`."""
