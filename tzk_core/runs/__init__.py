"""Runs of a config, from its data to its results, and the run folder."""
