"""The training code of the demo model, run by `samples/train_demo.py`."""
