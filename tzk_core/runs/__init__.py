"""What a config describes, from its data to its results, and the folder that a run leaves."""
