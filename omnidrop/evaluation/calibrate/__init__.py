"""Search for a method's settings on a question set."""
