"""The only place that knows transformers' and bitsandbytes' names."""
