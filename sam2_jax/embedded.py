"""The small model and the sample picture that come with the package, for a first look and for tests.

The model is no substitute for SAM 2: `assets/embedded/README.md` says what it was trained on and how well it
does.
"""

from pathlib import Path

from sam2_jax.hub import HubFolder

_ASSETS = Path(__file__).parent / "assets"
EMBEDDED_MODEL = _ASSETS / "embedded"
"""Folder of the small model: `Sam2Model.from_pretrained(EMBEDDED_MODEL)`."""

SAMPLE_PICTURE = _ASSETS / "sample.png"
SAMPLE_POINTS = ((90.0, 90.0),)
"""A point (x, y) on each of some things in the sample picture."""

DEFAULT_MODEL = "facebook/sam2.1-hiera-tiny"


def default_model(revision: str | None = None) -> tuple[str | Path, str | None]:
    """The default model's name if it can be had, cached or from the hub; otherwise the embedded one's folder.

    Returns that and, for the embedded one, a sentence that says why. A given revision has no substitute:
    raises ValueError if it cannot be had.
    """
    try:
        HubFolder(DEFAULT_MODEL, revision=revision).weights()
    except ValueError as error:
        if revision is not None:
            raise
        reason = str(error).split(". ")[0]
        return EMBEDDED_MODEL, (
            f"{DEFAULT_MODEL} cannot be had ({reason}). The small model that comes with sam2_jax is used "
            "instead: good for a first look, no substitute for SAM 2. For the real one, run again with the "
            "network up, or give --model a folder that holds it"
        )
    return DEFAULT_MODEL, None
