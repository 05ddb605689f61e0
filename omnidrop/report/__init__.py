"""The record of an answer: `trace.Trace`. `omnidrop_cli.terminal` draws it."""
