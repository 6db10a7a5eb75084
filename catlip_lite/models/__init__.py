"""ViTs by name, and pre-trained models as one folder."""

from .pretrained import PretrainedModel, label_rows, load, save_pretrained, zero_shot_scores
from .vit import MODELS, create_vit

__all__ = ["MODELS", "PretrainedModel", "create_vit", "label_rows", "load", "save_pretrained", "zero_shot_scores"]
