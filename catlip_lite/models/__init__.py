"""ViTs by name, published weights as such ViTs, pre-trained models as one folder, exports for other programs."""

from .clip import ClipModel
from .corenet import corenet_state_dict, corenet_task, load_corenet, load_corenet_detector, load_corenet_segmenter
from .export import export_program, export_timm
from .heads import Head, fit_scale, fit_temperature, random_head, transfer_head, zero_shot_head
from .image_model import ImageModel
from .pretrained import PretrainedModel, load, save_pretrained, untrained
from .vit import MODELS, create_vit

__all__ = [
    "MODELS",
    "ClipModel",
    "Head",
    "ImageModel",
    "PretrainedModel",
    "corenet_state_dict",
    "corenet_task",
    "create_vit",
    "export_program",
    "export_timm",
    "fit_scale",
    "fit_temperature",
    "load",
    "load_corenet",
    "load_corenet_detector",
    "load_corenet_segmenter",
    "random_head",
    "save_pretrained",
    "transfer_head",
    "untrained",
    "zero_shot_head",
]
