"""The lab model: a pretrained language model behind the demo model's encoders.

`train_lab.py` makes it. It is not part of the package.
"""
