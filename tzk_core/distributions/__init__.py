"""Densities, each an nflows `Distribution` whose samples are a function of noise and context."""
