"""Qwen2.5-Omni: decoder, encoders, prompt template and sizes."""
