"""So that `python -m omnidrop_cli` does what `omnidrop` does."""

from omnidrop_cli.main import main

if __name__ == "__main__":
    main()
