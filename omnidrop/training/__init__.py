"""Training of the small predictors that some methods need."""
