"""What sessions and batches need of a model; `Sam2Model` is one."""

from typing import Any, Protocol

from jax.sharding import Mesh

from sam2_jax.config import Sam2Config
from sam2_jax.image.outputs import Sam2ImageSegmentationOutput
from sam2_jax.model.sam2 import ImageEmbeddings
from sam2_jax.processing.processor import Sam2Processor


class PromptableModel(Protocol):
    """A model that encodes images and decodes masks for prompts on them."""

    config: Sam2Config
    padding: str

    @property
    def mesh(self) -> Mesh | None:
        """The devices that share the work, if there are several."""

    @property
    def device_count(self) -> int:
        """How many devices share the images of a call."""

    def on_devices(self, devices: Any) -> Any:
        """The same model on several devices."""

    @property
    def processor(self) -> Sam2Processor:
        """What prepares photos and prompts for this model."""

    def get_image_embeddings(self, pixel_values: Any) -> ImageEmbeddings:
        """Encode pixels [B, H, W, 3]."""

    def __call__(
        self,
        *,
        input_points: Any = None,
        input_labels: Any = None,
        input_masks: Any = None,
        image_embeddings: ImageEmbeddings | None = None,
        multimask_output: bool = True,
        min_score: float | None = None,
    ) -> Sam2ImageSegmentationOutput:
        """Decode masks for prompts on encoded images."""
