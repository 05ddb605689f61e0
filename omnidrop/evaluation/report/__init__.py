"""What is said of many answers at once: rows of batches and evaluations, as a stream."""
