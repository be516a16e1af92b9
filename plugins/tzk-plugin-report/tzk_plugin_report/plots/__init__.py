"""Plots of samples/: curves over the steps of training, vectors and points of the plane."""
