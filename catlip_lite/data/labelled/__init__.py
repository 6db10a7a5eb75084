"""Labelled images by one address, ImageNet as it is downloaded or a folder of thirty pictures, and their evaluation views."""

from .images import LabelledImages
from .layouts import address_name, load_labelled, named_addresses
from .views import all_views, batches_of_views, check_labelled

__all__ = [
    "LabelledImages",
    "address_name",
    "all_views",
    "batches_of_views",
    "check_labelled",
    "load_labelled",
    "named_addresses",
]
