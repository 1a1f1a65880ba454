"""`Sam2VisionModel` and `Sam2HieraDetModel`: the image encoder, and the backbone inside it, alone."""

from collections.abc import Mapping
from typing import Any

from sam2_jax.checkpoint.pretrained import PretrainedModel
from sam2_jax.config import Sam2HieraDetConfig, Sam2VisionConfig
from sam2_jax.image.arguments import check_flag, check_sized_pixels
from sam2_jax.image.outputs import Sam2HieraDetModelOutput, Sam2VisionEncoderOutput
from sam2_jax.model.sam2 import VisionFeatures


class Sam2VisionModel(PretrainedModel[Sam2VisionConfig]):
    """SAM 2's image encoder: Hiera and its feature pyramid, without prompts and masks.

    `from_pretrained` takes whole SAM 2 checkpoints, of which it reads the vision encoder.
    """

    config_class = Sam2VisionConfig

    def __call__(
        self,
        pixel_values: Any = None,
        output_hidden_states: bool | None = False,
        output_attentions: bool | None = False,
        return_dict: bool | None = True,
    ) -> Sam2VisionEncoderOutput:
        """Encode normalised pixels [B, H, W, 3], H and W any multiples of `config.backbone_config.stride`.

        Returns the features, as a tuple of what is there if return_dict is False (None is True).
        Raises ValueError for pixels that are missing, of another shape, not floating point or not finite.
        """
        pixels = check_sized_pixels(pixel_values, self.config.backbone_config)
        return_dict = check_flag("return_dict", return_dict, True)
        record = wanted_records(output_hidden_states, output_attentions)
        features, recorded = self._run("__call__", pixels, record=record)
        records = backbone_records(recorded, ("backbone",), self.config.backbone_config)
        output = encoder_output(features, records)
        return output.or_tuple(return_dict)

    forward = __call__


class Sam2HieraDetModel(PretrainedModel[Sam2HieraDetConfig]):
    """Hiera, SAM 2's backbone, alone.

    `from_pretrained` takes whole SAM 2 checkpoints and vision models, of which it reads the backbone.
    """

    config_class = Sam2HieraDetConfig

    def __call__(
        self,
        pixel_values: Any = None,
        output_hidden_states: bool | None = False,
        output_attentions: bool | None = False,
        return_dict: bool | None = True,
    ) -> Sam2HieraDetModelOutput:
        """Encode normalised pixels [B, H, W, 3], H and W any multiples of `config.stride`.

        Returns the last map of each stage, as a tuple of what is there if return_dict is False (None is
        True). Raises ValueError for pixels that are missing, of another shape, not floating point or not
        finite.
        """
        pixels = check_sized_pixels(pixel_values, self.config)
        return_dict = check_flag("return_dict", return_dict, True)
        record = wanted_records(output_hidden_states, output_attentions)
        stages, recorded = self._run("__call__", pixels, record=record)
        records = backbone_records(recorded, (), self.config)
        output = Sam2HieraDetModelOutput(
            last_hidden_state=stages[-1], intermediate_hidden_states=stages, **records
        )
        return output.or_tuple(return_dict)

    forward = __call__


def wanted_records(hidden_states: bool | None, attentions: bool | None) -> tuple[str, ...]:
    """Names of the collections that modules are to sow into. Raises ValueError for other than flags."""
    wanted = {"hidden_states": hidden_states, "attentions": attentions}
    return tuple(name for name, flag in wanted.items() if check_flag(f"output_{name}", flag, False))


def backbone_records(
    recorded: Mapping[str, Any], path: tuple[str, ...], config: Sam2HieraDetConfig
) -> dict[str, Any]:
    """Return what the backbone at this path of modules sowed, hidden_states and attentions, by name."""
    records = {}
    for collection, backbone in recorded.items():
        for name in path:
            backbone = backbone[name]
        if collection == "hidden_states":
            records[collection] = backbone["tokens"][0]
        else:
            blocks = range(sum(config.blocks_per_stage))
            records[collection] = tuple(backbone[f"blocks_{i}"]["attn"]["weights"][0] for i in blocks)
    return records


def encoder_output(features: VisionFeatures, records: Mapping[str, Any]) -> Sam2VisionEncoderOutput:
    """Put the vision encoder's features and records under their documented names."""
    return Sam2VisionEncoderOutput(
        last_hidden_state=features.last_hidden_state,
        fpn_hidden_states=features.levels,
        fpn_position_encoding=features.positions,
        **records,
    )
