"""Models that bring along the processor of their pictures, and options of automatic masks."""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sam2_jax.checkpoint.hub import GENERATION_FILE, PROCESSOR_FILE, PROCESSOR_FILES, HubFolder
from sam2_jax.checkpoint.pretrained import PretrainedModel
from sam2_jax.config import Sam2Config, Sam2VideoConfig
from sam2_jax.image.generation_options import read_generation_options
from sam2_jax.json_files import to_json
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.processor import Sam2Processor

Config = TypeVar("Config", Sam2Config, Sam2VideoConfig)


class ModelWithProcessor(PretrainedModel[Config]):
    """A model of pictures: its folder holds a processor beside the weights, and maybe options of masks.

    A model for clips keeps those too, for whoever loads its folder as one for pictures.
    """

    processor_class: ClassVar[type[Sam2Processor]] = Sam2Processor

    @property
    def image_config(self) -> Sam2Config:
        """The image model, or that inside the video model."""
        found: Sam2Config = self.config.part(Sam2Config)[0]
        return found

    @cached_property
    def processor(self) -> Sam2Processor:
        """The processor that lies beside the loaded weights, or the usual one, for the model's image size."""
        if self._source is None:
            return self.processor_class(Sam2ImageProcessor.for_config(self.image_config))
        model, options = self._source
        return self._in_own_size(self.processor_class.from_pretrained(model, **options))

    def _in_own_size(self, found: Sam2Processor) -> Sam2Processor:
        """A processor, for this model's image size."""
        usual = Sam2ImageProcessor.for_config(self.image_config)
        if found.image_processor.do_center_crop or _fits(found, usual):
            return found
        resized = found.image_processor.replace(size=usual.size, mask_size=usual.mask_size)
        return self.processor_class(resized, point_pad_value=found.point_pad_value)

    def _bring_along(self, other: "ModelWithProcessor[Any]") -> None:
        """Give a model made of this one what this one brings: where it is from, and what was read or set."""
        other._source = self._source
        kept = ("processor", "generation_options")
        vars(other).update({name: vars(self)[name] for name in kept if name in vars(self)})

    def _resize_processor(self) -> None:
        """Make a processor that was brought along one for this model's image size."""
        if "processor" in vars(self):
            self.processor = self._in_own_size(self.processor)

    @cached_property
    def generation_options(self) -> dict[str, Any]:
        """Options of automatic masks that lie beside the loaded weights in a local folder; {} without any.

        See `MaskGenerationOptions`; they are the defaults where neither options nor a preset are given.
        """
        if self._source is None:
            return {}
        model, options = self._source
        folder = HubFolder(model, **options)
        path = folder.find(GENERATION_FILE) if folder.is_local else None
        return {} if path is None else read_generation_options(path)

    def _texts_beside(self, folder: Path) -> dict[str, str]:
        """The processor, and what the model brings along for masks, in place of what another one brought."""
        texts = self._processor_beside(folder)
        if self.generation_options or (folder / GENERATION_FILE).exists():
            texts[GENERATION_FILE] = to_json(self.generation_options)
        return texts

    def _processor_beside(self, folder: Path) -> dict[str, str]:
        """The processor, unless the folder has one for this model's image size: they are used together."""
        usual = Sam2ImageProcessor.for_config(self.image_config)
        try:
            if any((folder / name).exists() for name in PROCESSOR_FILES):
                there = self.processor_class.from_pretrained(folder)
                if there.image_processor.do_center_crop or _fits(there, usual):
                    return {}
            processor = self.processor
        except ValueError:  # of a broken file, or of a hub that is gone: no reason to lose the weights
            processor = self.processor_class(usual)
        return {PROCESSOR_FILE: to_json(processor.to_dict())}


def _fits(processor: Sam2Processor, usual: Sam2ImageProcessor) -> bool:
    return processor.image_processor.size == usual.size
