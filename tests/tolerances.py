"""How close to transformers every result must be: the one table that parity tests and goldens read.

The limits are for float32 at "highest" matmul precision and hold for every size of network. They are never
loosened: a result beyond its limit has a cause, which is to be found.
"""

import numpy as np

TOLERANCES = {
    "features": 1e-5,  # whatever has the shape of an image: positions, blocks, pyramid levels, embeddings
    "tokens": 1e-5,  # prompt tokens and the decoder's tokens
    "attentions": 1e-5,
    "scores": 1e-5,  # predicted IoU, object score
    "masks": 1e-4,  # mask logits
    "gradients": 1e-4,
    "losses": 1e-5,  # of training, and their gradients
}

# (kind, rung of the ladder) -> the worst relative error met in this run, for the summary at its end.
worst: dict[tuple[str, str], float] = {}


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """|actual - expected| / |expected|, Euclidean norms over all elements, computed in float64."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def record_error(kind: str, rung: str, error: float) -> None:
    """Keep the error if it is the worst of its rung."""
    worst[kind, rung] = max(error, worst.get((kind, rung), 0.0))


def assert_close(kind: str, rung: str, actual: np.ndarray, expected: np.ndarray) -> None:
    """Assert equal shapes and a relative error within the kind's limit; rung names what is compared."""
    assert np.shape(actual) == np.shape(expected), (
        f"{rung}: shape {np.shape(actual)}, not {np.shape(expected)}"
    )
    error = relative_error(actual, expected)
    record_error(kind, rung, error)
    assert error <= TOLERANCES[kind], (
        f"{rung}: relative error {error:.2e} exceeds {TOLERANCES[kind]:.0e} ({kind})"
    )
