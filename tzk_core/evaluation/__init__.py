"""Likelihoods, information and classification of a trained model on held-out data."""
