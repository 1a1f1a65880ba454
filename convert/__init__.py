"""Command-line conversion between PyTorch and Flax checkpoints: `python -m convert --help`."""
