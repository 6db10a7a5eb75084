"""A small pre-trained model, for pictures of 16 pixels, and scenes of coloured blocks with boxes."""

import json

import pytest
import torch

from catlip_lite.data.demo.scenes import write_scenes
from catlip_lite.models import ClipModel, PretrainedModel, create_vit
from catlip_lite.models.clip import add_projection, text_tower

BLOCKS = {"apple": (220, 20, 20), "banana": (240, 220, 40), "dog": (60, 40, 200)}


@pytest.fixture
def model(vocabulary) -> PretrainedModel:
    torch.manual_seed(0)
    network = create_vit("vit_nano8", num_classes=len(vocabulary), image_size=16)
    torch.nn.init.normal_(network.head.bias)
    return PretrainedModel(network, vocabulary, {"model": "vit_nano8", "image_size": 16}, "cpu")


@pytest.fixture
def clip_model() -> ClipModel:
    """One as small, which knows no synsets."""
    pytest.importorskip("open_clip")
    torch.manual_seed(0)
    network = add_projection(create_vit("vit_nano8", 0, image_size=16), "vit_nano8")
    config = {"model": "vit_nano8", "image_size": 16, "objective": "clip"}
    return ClipModel(network, text_tower("vit_nano8", 24), 10.0, config, "cpu")


@pytest.fixture
def scenes(tmp_path, make_png):
    """`make(split, count, without)`: COCO annotations of so many scenes, but for a class that they do not know."""

    def make(split, count, without=None):
        (tmp_path / split).mkdir()
        (tmp_path / "annotations").mkdir(exist_ok=True)
        found = write_scenes(tmp_path / split, {n: [make_png(colour, (72, 72))] for n, colour in BLOCKS.items()}, count, split)
        gone = {category["id"] for category in found["categories"] if category["name"] == without}
        found["categories"] = [category for category in found["categories"] if category["id"] not in gone]
        found["annotations"] = [box for box in found["annotations"] if box["category_id"] not in gone]
        path = tmp_path / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(found))
        return str(path)

    return make
