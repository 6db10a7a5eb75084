"""Models by name have the reference's shapes."""

import pytest
import torch

from catlip_lite.models import create_vit


@pytest.mark.parametrize(("name", "parameters"), [("vit_b16", 104_657_408), ("vit_l16", 328_766_208), ("vit_h16", 663_152_640)])
def test_parameter_counts_with_the_papers_24320_classes(name, parameters):
    with torch.device("meta"):
        model = create_vit(name, num_classes=24_320)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="vit_xx.*vit_b16"):
        create_vit("vit_xx", num_classes=5)


def test_size_must_be_a_multiple_of_the_patch():
    with pytest.raises(ValueError, match="image_size=50 is no multiple of the patch, 8"):
        create_vit("vit_nano8", num_classes=5, image_size=50)


@pytest.mark.parametrize("stem", ["overlapping", "patches"])
def test_every_stem_takes_other_sizes(stem):
    model = create_vit("vit_nano8", num_classes=5, image_size=16, stem=stem).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 24, 32)).shape == (2, 5)


def test_a_stem_for_other_patches_is_refused():
    with pytest.raises(ValueError, match="stem='overlapping' cuts patches of 8 pixels, this model's have 16"):
        create_vit("vit_ti16", num_classes=5, image_size=32, stem="overlapping")


def test_unknown_stem_lists_the_known_ones():
    with pytest.raises(ValueError, match="stem='conv' is unknown: choose one of reference, overlapping, patches"):
        create_vit("vit_nano8", num_classes=5, image_size=16, stem="conv")


def test_unknown_pooling_lists_the_known_ones():
    with pytest.raises(ValueError, match="pooling='max' is unknown: choose one of token, avg"):
        create_vit("vit_nano8", num_classes=5, image_size=16, pooling="max")
