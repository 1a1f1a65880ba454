"""transformers' Auto classes for the models there are here: which class it is, the checkpoint's type says."""

from pathlib import Path
from typing import Any, ClassVar

from sam2_jax.checkpoint.hub import IMAGE_PROCESSOR_FILE, PROCESSOR_FILE, HubFolder, take_source
from sam2_jax.checkpoint.reading import has_memory
from sam2_jax.checks import check_options, did_you_mean, shown
from sam2_jax.config import Sam2Config, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
from sam2_jax.image.model import Sam2Model
from sam2_jax.image.vision import Sam2HieraDetModel, Sam2VisionModel
from sam2_jax.json_files import read_json_object
from sam2_jax.processing.files import read_source
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.video.model import Sam2VideoModel
from sam2_jax.video.processor import Sam2VideoProcessor

_CONFIGS: dict[str, Any] = {
    kind.model_type: kind for kind in (Sam2Config, Sam2VideoConfig, Sam2VisionConfig, Sam2HieraDetConfig)
}
# A video checkpoint holds an image model.
_PROMPTABLE: dict[str, Any] = {"sam2": Sam2Model, "sam2_video": Sam2Model}
_MODELS: dict[str, Any] = {
    "sam2": Sam2Model,
    "sam2_video": Sam2VideoModel,
    "sam2_vision_model": Sam2VisionModel,
    "sam2_hiera_det_model": Sam2HieraDetModel,
}


class _Auto:
    """What the classes have in common: no objects of their own, and a checkpoint's type."""

    types: ClassVar[dict[str, Any]] = _CONFIGS

    def __init__(self, *_: Any, **__: Any) -> None:
        """Raises ValueError: objects are those of other classes."""
        name = type(self).__name__
        raise ValueError(f"{name} has no objects of its own: {name}.from_pretrained chooses a class")

    @classmethod
    def _type_of(cls, model: str | Path, where: dict[str, Any]) -> str:
        """The model_type of a hub id or folder, if it is one of this class's."""
        folder = HubFolder(model, **where)
        if folder.file is not None and folder.find("config.json") is None:
            return "sam2_video" if has_memory(folder) else "sam2"
        path = folder.get("config.json")
        return cls._known(read_json_object(path).get("model_type"), str(path))

    @classmethod
    def _known(cls, model_type: Any, where: str) -> str:
        if isinstance(model_type, str) and model_type in cls.types:
            return model_type
        raise ValueError(
            f"{where}: model_type must be one of {', '.join(cls.types)} for {cls.__name__}; got "
            f"{shown(model_type)}"
        )


class AutoConfig(_Auto):
    """The configuration of a checkpoint."""

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Any:
        """Read the configuration of a hub id or folder, of the class that its model_type names.

        options: as of the class's `from_pretrained`. Raises ValueError if it cannot be found or is of another
        model, and for options that it does not have.
        """
        known = {name for kind in _CONFIGS.values() for name in kind.loading_options()}
        check_options(options, sorted(known), "AutoConfig.from_pretrained")
        model, where = take_source(model, options)
        return _CONFIGS[cls._type_of(model, where)].from_pretrained(model, **where, **options)

    @classmethod
    def for_model(cls, model_type: str, **fields: Any) -> Any:
        """Make a configuration of a model_type: "sam2", say. Raises ValueError for another type."""
        if not isinstance(model_type, str) or model_type not in _CONFIGS:
            raise ValueError(
                f"unknown model_type {shown(model_type)}{did_you_mean(str(model_type), _CONFIGS)}"
            )
        check_options(fields, _CONFIGS[model_type].__dataclass_fields__, model_type)
        return _CONFIGS[model_type](**fields)


class AutoModel(_Auto):
    """The model of a checkpoint: Sam2Model, Sam2VideoModel, Sam2VisionModel or Sam2HieraDetModel.

    Released checkpoints are of the video model; for pictures `AutoModelForMaskGeneration` takes the image
    model out of them.
    """

    types = _MODELS

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Any:
        """Load the model of a hub id or folder; arguments as of its class's `from_pretrained`.

        Raises ValueError if it cannot be loaded or is of another kind.
        """
        model, where = take_source(model, options)
        Sam2Model.check_loading(**where, **options)
        given = getattr(options.get("config"), "model_type", None)
        kind = cls.types[cls._type_of(model, where) if given is None else cls._known(given, "config")]
        return kind.from_pretrained(model, **where, **options)

    @classmethod
    def from_config(cls, config: Any, **options: Any) -> Any:
        """Build the model of a configuration with random weights; options as of its class, such as dtype."""
        name = getattr(config, "model_type", None)
        if type(config) is not _CONFIGS.get(str(name)):
            raise ValueError(f"config must be a configuration such as Sam2Config(); got {shown(config)}")
        kind = cls.types[cls._known(name, "config")]
        return kind(config.part(kind.config_class)[0], **options)


class AutoModelForMaskGeneration(AutoModel):
    """The model of a checkpoint that masks are asked of: Sam2Model."""

    types = _PROMPTABLE


class AutoProcessor(_Auto):
    """The processor of a checkpoint: Sam2Processor, or Sam2VideoProcessor, which can do all that it can."""

    kinds: ClassVar[tuple[Any, ...]] = (Sam2Processor, Sam2VideoProcessor)

    @classmethod
    def from_pretrained(cls, model: str | Path | None = None, **options: Any) -> Any:
        """Read the processor of a hub id or folder; arguments as of its class's `from_pretrained`.

        Raises ValueError if it cannot be found or is of another kind of model, and for options that it does
        not have.
        """
        known = {name for kind in cls.kinds for name in kind.loading_options()}
        check_options(options, sorted(known), f"{cls.__name__}.from_pretrained")
        model, where = read_source(model, options)
        return cls._kind_of(model, where).from_pretrained(model, **where, **options)

    @classmethod
    def _kind_of(cls, model: str | Path, where: dict[str, Any]) -> Any:
        """The class that the processor's files name, or else that of the model beside them, if any is."""
        folder = HubFolder(model, **where)
        kinds = {kind.__name__: kind for kind in cls.kinds}
        for name in (PROCESSOR_FILE, IMAGE_PROCESSOR_FILE):
            if path := folder.find(name):
                named = read_json_object(path).get("processor_class")
                if isinstance(named, str) and named in kinds:
                    return kinds[named]
        if folder.find("config.json") and cls._type_of(model, where) == "sam2_video":
            return cls.kinds[-1]
        return cls.kinds[0]


class AutoImageProcessor(AutoProcessor):
    """The image processor of a checkpoint: Sam2ImageProcessor."""

    kinds = (Sam2ImageProcessor,)
