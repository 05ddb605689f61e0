"""Video packets to frames: one reader, or several side by side."""
