"""What methods are built from: selection, merging, relevance, rank stability."""
