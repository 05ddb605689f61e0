"""Serves one loaded model to several askers.

`warm` keeps a model loaded and gives its use to one asker at a time, in the order in which they
came. It needs nothing but the engine; what speaks HTTP needs the extra `omnidrop[serve]` and is
imported by name alone.
"""
