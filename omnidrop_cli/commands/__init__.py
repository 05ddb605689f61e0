"""One command, one file; and what several of them share."""
