"""Images of dense tasks by one address, ADE20k and COCO as they are downloaded or the demo's, and their training batches."""

from .corpus import DenseCorpus
from .objects import DetectedImages, load_objects
from .segmentation import IGNORED, SegmentedImages, load_segmentation
from .views import DetectionViews, SegmentationViews

__all__ = [
    "IGNORED",
    "DenseCorpus",
    "DetectedImages",
    "DetectionViews",
    "SegmentationViews",
    "SegmentedImages",
    "load_objects",
    "load_segmentation",
]
