"""Data sets, their protocol, and batches from several of them."""
