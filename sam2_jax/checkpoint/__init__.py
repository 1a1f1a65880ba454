"""Weights on disk: transformers' tensor names, safetensors files, the hub. Pickles are never opened here."""
