"""Pruning: which audio and video tokens each decoder layer sees.

`method` is the contract, `methods` holds one file per method, `parts` what they share, `schedules`
solves how many tokens enter each layer, `compose` joins two methods, `registry` finds them by name.
"""
