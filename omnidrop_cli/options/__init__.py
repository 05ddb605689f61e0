"""Command line options: groups of flags, their parsing and their help."""
