"""Many questions about many clips: read from a file, asked in turn, answers added to a file."""
