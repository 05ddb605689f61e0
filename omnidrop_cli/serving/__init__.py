"""One warm model for many command lines.

`client` hands a command to the process of `omnidrop serve`, if there is one; `host` is that
process: it runs the same command on the client's own terminal, files and environment. `protocol` is
what they say to each other. `client` and `protocol` need the standard library alone.
"""
