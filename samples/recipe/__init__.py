"""How the demo model is trained; `samples/train_demo.py` is the command."""
