"""The small model and the sample picture that come with the package, at a user's address for them."""

from sam2_jax.checkpoint.embedded import DEFAULT_MODEL as DEFAULT_MODEL
from sam2_jax.checkpoint.embedded import EMBEDDED_MODEL as EMBEDDED_MODEL
from sam2_jax.checkpoint.embedded import SAMPLE_PICTURE as SAMPLE_PICTURE
from sam2_jax.checkpoint.embedded import SAMPLE_POINTS as SAMPLE_POINTS
