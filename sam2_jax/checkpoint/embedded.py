"""The small model and the sample picture that come with the package, for a first look and for tests.

The model is no substitute for SAM 2: `assets/embedded/README.md` says what it was trained on and how well it
does.
"""

from pathlib import Path

from sam2_jax.checkpoint.hub import EMBEDDED as EMBEDDED
from sam2_jax.checkpoint.hub import EMBEDDED_MODEL as EMBEDDED_MODEL
from sam2_jax.checkpoint.hub import HubFolder, is_reachable

SAMPLE_PICTURE = Path(__file__).parents[1] / "assets" / "sample.png"
SAMPLE_SCENE = 7, 7, 512
"""Stream, number and size by which `training.synthetic.scenes.make_scene` makes the sample picture."""
SAMPLE_POINTS = ((428.0, 140.0), (258.0, 298.0), (318.0, 448.0))
"""A point (x, y) on each of three things in it."""

DEFAULT_MODEL = "facebook/sam2.1-hiera-tiny"


def default_model(revision: str | None = None) -> tuple[str, str | None]:
    """The default model's name if it can be had, cached or from the hub; otherwise the embedded one's.

    Returns that and, for the embedded one, a sentence that says why. A given revision has no substitute:
    raises ValueError if it cannot be had.
    """
    try:
        _fetch(revision)
    except ValueError as error:
        if revision is not None:
            raise
        reason = str(error).split(". ")[0]
        return EMBEDDED, (
            f"{DEFAULT_MODEL} cannot be had ({reason}). The small model that comes with sam2_jax is used "
            "instead: good for a first look, no substitute for SAM 2. For the real one, run again with the "
            "network up, or give --model a folder that holds it"
        )
    return DEFAULT_MODEL, None


def _fetch(revision: str | None) -> None:
    """See to it that the default model's files are here. Raises ValueError if they cannot be had."""
    try:
        HubFolder(DEFAULT_MODEL, revision=revision, local_files_only=True).weights()
    except ValueError:
        if not is_reachable():
            raise
        HubFolder(DEFAULT_MODEL, revision=revision).weights()
