"""The command line, the only user of typer and rich. Run `omnidrop --help`.

`commands` has one file per command, `options` their flags, `terminal` draws reports, `files` writes
results, `errors` turns an exception into a sentence and an exit code.
"""
