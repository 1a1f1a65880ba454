"""Checkpoint conversion beside PyTorch: `python -m convert --help`."""
