"""Model families and their loading; the only package that knows transformers or a family."""

#: Modules of the families that come with the package; each has a `FAMILY`.
FAMILIES = ("omnidrop.models.qwen2_5_omni",)
