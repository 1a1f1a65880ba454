"""Training: losses, prompt simulation, the optax step, data, and synthetic scenes."""
