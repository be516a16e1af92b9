"""Whole shared flows, each a function of the shape of T and a few arguments."""
