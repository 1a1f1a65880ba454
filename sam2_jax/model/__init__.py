"""The network as pure Flax Linen modules, channels last throughout."""
