"""The whole models behind transformers' ``PreTrainedModel``: saved, found by AutoModel.

    MultimodalModel.of(model).save_pretrained(folder)
    import mmcourse.hub
    AutoModel.from_pretrained(folder)

The folder holds config.json and model.safetensors, as on a model hub, and no code:
importing this file tells AutoModel what to build. Taught in 06_multimodal_transformer.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import ClassVar, get_args, get_type_hints

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from mmcourse.dual_encoder import DualEncoder, DualEncoderConfig
from mmcourse.multimodal import MultimodalConfig, MultimodalTransformer
from mmcourse.pretrained import without_bars


def dataclass_from(kind: type, values: Mapping):
    """Build a dataclass, and those in its fields, from what ``asdict`` made of it."""
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {f.name for f in fields(kind)})
    if unknown:
        raise ValueError(
            f"{kind.__name__} has no {', '.join(unknown)}: the model was saved by "
            "another version of mmcourse, or its config.json was changed"
        )

    def built(name: str, value):
        if not isinstance(value, Mapping):
            return value
        kinds = [hints[name], *get_args(hints[name])]  # X, or the X and Y of X | Y
        kinds = [k for k in kinds if is_dataclass(k)]
        own = [k for k in kinds if set(value) <= {f.name for f in fields(k)}]
        return dataclass_from((own or kinds)[0], value)

    return kind(**{name: built(name, value) for name, value in values.items()})


class CourseConfig(PretrainedConfig):
    """The config of a whole model: its dataclass as ``settings``."""

    __no_type_check__ = True  # transformers passes keywords that no signature names
    settings: dict | None = None
    tie_word_embeddings: bool = True


class CourseModel(PreTrainedModel):
    """A whole model behind transformers' face; it lies in ``model``.

    A subclass names its ``config_class``, its ``whole`` model and the dataclass
    ``made_of`` that the model is made by, and is handed to ``register``.
    """

    config_class = CourseConfig
    whole: ClassVar[type[nn.Module]]
    made_of: ClassVar[type]

    def __init__(self, config: CourseConfig, model: nn.Module | None = None):
        super().__init__(config)
        if model is None:
            if config.settings is None:
                raise ValueError("config.json has no settings: save with mmcourse.hub")
            with torch.device("cpu"):  # transformers builds without numbers, on "meta"
                model = self.make(dataclass_from(self.made_of, config.settings))
            model = model.to(torch.get_default_dtype())
        self.model = model
        self._tied_weights_keys = _tied(self)
        # What follows from the config, such as sines, is in no file, and transformers
        # leaves memory that nobody filled in its place.
        self._tables = {n: b.clone() for n, b in self.named_non_persistent_buffers()}
        self.post_init()

    @classmethod
    def make(cls, config) -> nn.Module:
        """Make the whole model by its dataclass."""
        return cls.whole(config)

    @classmethod
    def of(cls, model: nn.Module) -> "CourseModel":
        """Give a model this face; its weights stay its own."""
        if not isinstance(model, cls.whole):
            raise ValueError(
                f"{cls.__name__} holds a {cls.whole.__name__}, not a "
                f"{type(model).__name__}"
            )
        return cls(cls.config_class(settings=asdict(model.config)), model)

    @classmethod
    def from_pretrained(cls, folder, *args, **kwargs):
        """Load a model; ValueError where the weights aren't exactly its own."""
        report = kwargs.pop("output_loading_info", False)
        kwargs["output_loading_info"] = True
        try:
            with without_bars():
                model, info = super().from_pretrained(folder, *args, **kwargs)
        except SafetensorError as error:
            raise ValueError(
                f"the weights in {folder} can't be read ({error}): save or get them "
                "again"
            ) from error
        wrong = {k: sorted(v)[:4] for k, v in info.items() if k in WRONG and len(v) > 0}
        if wrong:
            raise ValueError(
                f"the weights in {folder} aren't those of its config: {wrong}"
            )
        for name, table in model._tables.items():
            model.get_buffer(name).copy_(table)
        return (model, info) if report else model

    def save_pretrained(self, folder, *args, **kwargs) -> None:
        """Write config.json and model.safetensors into a folder."""
        with without_bars():
            super().save_pretrained(folder, *args, **kwargs)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Call the model."""
        return self.model(batch)

    def _init_weights(self, module: nn.Module) -> None:
        """Leave weights as they are: transformers would draw them anew."""


WRONG = ("missing_keys", "unexpected_keys", "mismatched_keys")


def _tied(model: nn.Module) -> dict[str, str]:
    """Say of each parameter that is another one's tensor which one that is."""
    first: dict[int, str] = {}
    names = model.named_parameters(remove_duplicate=False)
    owner = {name: first.setdefault(id(p), name) for name, p in names}
    return {name: own for name, own in owner.items() if own != name}


def register(model: type[CourseModel]) -> type[CourseModel]:
    """Tell AutoConfig and AutoModel of a class, which they then find by its type."""
    AutoConfig.register(model.config_class.model_type, model.config_class)
    AutoModel.register(model.config_class, model)
    return model


class MultimodalModelConfig(CourseConfig):
    """The config of a ``MultimodalTransformer``."""

    model_type = "mmcourse-multimodal"


@register
class MultimodalModel(CourseModel):
    """A ``MultimodalTransformer`` as AutoModel loads it: ``logits = model(batch)``."""

    config_class = MultimodalModelConfig
    whole = MultimodalTransformer
    made_of = MultimodalConfig


class DualEncoderModelConfig(CourseConfig):
    """The config of a ``DualEncoder``."""

    model_type = "mmcourse-dual-encoder"


@register
class DualEncoderModel(CourseModel):
    """A ``DualEncoder`` as AutoModel loads it: ``image, text = model(batch)``."""

    config_class = DualEncoderModelConfig
    whole = DualEncoder
    made_of = DualEncoderConfig
    make = DualEncoder.made
