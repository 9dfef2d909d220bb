"""A command a file: its `run` takes the parsed command line and returns the exit status."""
