"""ViTs by name, published weights as such ViTs, and pre-trained models as one folder."""

from .corenet import corenet_state_dict, load_corenet
from .pretrained import PretrainedModel, label_rows, load, network_of, save_pretrained, zero_shot_scores
from .vit import MODELS, create_vit

__all__ = [
    "MODELS",
    "PretrainedModel",
    "corenet_state_dict",
    "create_vit",
    "label_rows",
    "load",
    "load_corenet",
    "network_of",
    "save_pretrained",
    "zero_shot_scores",
]
