"""Past one picture and one process: results as rows of tables, engines that feed it, exported programs."""

from sam2_jax.scale.hosts import initialize, share

__all__ = ["initialize", "share"]
