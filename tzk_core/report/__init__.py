"""Tables and pictures of a finished run, from measurements to files."""
