"""Weights on disk: transformers' tensor names, safetensors files, the hub. What a pickle asks for is never run."""
