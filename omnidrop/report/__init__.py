"""The record of an answer (`trace`); other packages draw and print it."""
