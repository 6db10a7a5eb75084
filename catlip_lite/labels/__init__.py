"""Captions → nouns → synsets → vocabulary → label matches. Imports no torch."""

from .label_sets import LabelSet
from .labeler import CaptionLabeler, count_synsets, name_to_wnids
from .matching import match_labels
from .vocabulary import Vocabulary, corenet_key
from .wordnet import load_nouns

__all__ = [
    "CaptionLabeler",
    "LabelSet",
    "Vocabulary",
    "corenet_key",
    "count_synsets",
    "load_nouns",
    "match_labels",
    "name_to_wnids",
]
