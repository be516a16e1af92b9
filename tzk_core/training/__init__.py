"""The training loop and checkpoints."""
