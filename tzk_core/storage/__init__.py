"""Checkpoints and knowledge files, written whole or not at all."""
