"""Weights on disk: names of tensors, files, the hub. What a pickle asks for is never run."""
