"""Pictures and prompts in, masks out: numpy and Pillow only, no JAX."""
