"""Model families and their loading: the only package that names transformers or a family.

`family` and `adapter` are what a family must provide, and each family has a folder of its own.
`loading` decides device, dtype, quantisation and attention, and estimates the memory needed.
"""

#: Modules of the families that come with the package; each has a `FAMILY`.
FAMILIES = ("omnidrop.models.qwen2_5_omni", "omnidrop.models.qwen3_omni")
