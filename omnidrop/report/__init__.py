"""What happened, what it cost, and pictures of both."""
