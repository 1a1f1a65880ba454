"""What image and video models encode alike: pictures and prompts."""

from collections.abc import Mapping
from copy import copy
from typing import Any, Self

import jax
from jax.sharding import NamedSharding

from sam2_jax.devices import WHOLE, mesh_of
from sam2_jax.image.arguments import check_flag, check_pixels, check_prompts, is_traced
from sam2_jax.image.outputs import Sam2VisionEncoderOutput
from sam2_jax.image.vision import backbone_records, encoder_output, wanted_records
from sam2_jax.image.with_processor import Config, ModelWithProcessor
from sam2_jax.model.sam2 import ImageEmbeddings


class EncodingModel(ModelWithProcessor[Config]):
    """A model that encodes pictures, and prompts on them."""

    # The Fourier matrix, and the image-wide positions made of it.
    _positions: tuple[jax.Array, jax.Array] | None = None

    def on_devices(self, devices: Any) -> Self:
        """The same model on several devices of this process: the first so many, or those given.

        Its weights lie on each. A call whose images are a multiple of the devices is divided among them, with
        the result that one device gives; any other call is computed by all of them alike. `predict_batch` and
        `AutomaticMaskGenerator` see to it that photos are such a multiple. Of a clip the objects are divided,
        where there is room for a multiple, and so are frames that are encoded together. Raises ValueError for
        more devices than there are.
        """
        mesh = mesh_of(devices)
        placed = copy(self)
        placed.params = jax.device_put(self.params, NamedSharding(mesh, WHOLE))
        placed.mesh = mesh
        return placed

    @property
    def device_count(self) -> int:
        """How many devices share the images of a call."""
        return 1 if self.mesh is None else self.mesh.size

    def get_image_embeddings(self, pixel_values: Any) -> ImageEmbeddings:
        """Encode images once for many prompts; pixel_values [B, H, W, 3] as the processor returns them.

        Returns [B, H/4, W/4, C/8], [B, H/8, W/8, C/4] and [B, H/16, W/16, C]. Raises ValueError for pixels
        that are missing, of another shape than configured, not floating point or not finite.
        """
        return self._run("encode_image", check_pixels(pixel_values, self.image_config))[0]

    def get_image_features(
        self,
        pixel_values: Any,
        output_hidden_states: bool | None = False,
        output_attentions: bool | None = False,
        return_dict: bool | None = True,
    ) -> Sam2VisionEncoderOutput:
        """Return all that the vision encoder makes of pixel_values [B, H, W, 3].

        fpn_hidden_states are maps [B, h, w, c], where transformers flattens them to [h * w, B, c]: the finer
        two narrowed to C/8 and C/4 channels for the decoder, the coarsest without the no-memory embedding
        that `get_image_embeddings` adds. return_dict=False gives the tuple of what is there; None is True.
        Raises ValueError as `get_image_embeddings` does.
        """
        return_dict = check_flag("return_dict", return_dict, True)
        record = wanted_records(output_hidden_states, output_attentions)
        pixels = check_pixels(pixel_values, self.image_config)
        features, recorded = self._run("image_features", pixels, record=record)
        output = encoder_output(features, self._backbone_records(recorded))
        return output.or_tuple(return_dict)

    def get_prompt_embeddings(
        self,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
    ) -> tuple[jax.Array | None, jax.Array]:
        """Embed prompts laid out as for a call, where they are described.

        Returns sparse tokens [B, P, T, C] and a dense map [B or 1, P or 1, h, w, C], 1 where all share it.
        T is N + 1 for N points, 3 for a box, N + 3 for both: points, corners, one not-a-point. Without points
        and boxes sparse is None. Raises ValueError as a call does.
        """
        points, labels, masks = check_prompts(input_points, input_labels, input_boxes, input_masks, None)
        (sparse, _, dense), _ = self._run("encode_prompts", points, labels, masks, grid_size=self._grid_size)
        return None if input_points is None and input_boxes is None else sparse, dense

    def get_image_wide_positional_embeddings(self) -> jax.Array:
        """Positions of the cells of the coarsest image embedding, float32 [1, h, w, C].

        Computed once for the weights that the model holds.
        """
        frequencies = self.params["shared_image_embedding"]["positional_embedding"]
        known = self._positions
        if known is not None and known[0] is frequencies:
            return known[1]
        positions = self._run("image_positions")[0]
        if not is_traced(positions):  # or it would outlive its trace
            self._positions = frequencies, positions
        return positions

    @property
    def _grid_size(self) -> tuple[int, int]:
        """(height, width) of the coarsest image embedding."""
        patch = self.image_config.prompt_encoder_config.patch_size
        height, width = self.image_config.image_size
        return height // patch, width // patch

    def _backbone_records(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        path = ("vision_encoder", "backbone")
        return backbone_records(recorded, path, self.image_config.vision_config.backbone_config)
