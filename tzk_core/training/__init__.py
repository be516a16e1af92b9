"""The training loop, its settings, optimisers and validation."""
