"""Time, memory and FLOPs: estimates, measurements, and figures of both.

`estimate` needs no weights, `measure` runs the model, `fit` finds the largest budget within limits,
`figures` and `contact_sheet` draw.
"""
