"""The knowledge types that the core registers."""
