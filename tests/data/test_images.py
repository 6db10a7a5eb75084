"""Decoding and augmentation."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from catlip_lite.data.images import AUGMENTATIONS, Augmentation, augment, centre_crop, colour_transform, decode


def encode(image: Image.Image, kind="PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def test_transparency_becomes_white():
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert decode(encode(image)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_to_eight():
    image = Image.fromarray(np.full((2, 2), 65535, dtype=np.uint16))
    assert decode(encode(image)).getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_jpeg_is_read():
    assert decode(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")).getpixel((4, 4)) == (255, 255, 255)


def test_what_is_no_image_is_said_with_its_size():
    with pytest.raises(ValueError, match="unreadable image of 5 bytes"):
        decode(b"hello")


def test_centre_crop_takes_the_middle():
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (100, 0, 200, 100))
    assert (centre_crop(image, 32, short_side=32)[:, :, 2:-2] == 255).all()


def test_no_augmentation_gives_the_image_itself():
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = augment(images, torch.ones(3), 16, AUGMENTATIONS["none"], torch.Generator())
    torch.testing.assert_close(views, images.float() / 255, atol=1e-4, rtol=0)


def test_flip_mirrors_left_and_right():
    images = torch.arange(16, dtype=torch.uint8).expand(1, 3, 16, 16) * 10
    always = Augmentation(crop_scale=(1, 1), crop_ratio=(1, 1), flip=1.0)
    views = augment(images, torch.ones(1), 16, always, torch.Generator())
    torch.testing.assert_close(views, images.flip(-1).float() / 255, atol=1e-4, rtol=0)


def test_the_same_generator_state_gives_the_same_views():
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    first, again, other = (
        augment(images, torch.ones(4), 8, AUGMENTATIONS["drawings"], torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_crops_keep_the_true_shape_of_wide_images():
    # A circle in a picture twice as wide as high, squashed to a square: a view must show it round again.
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-2, 2, 96), indexing="ij")
    circle = ((x**2 + y**2 < 0.64).to(torch.uint8) * 255).expand(1, 3, 96, 96)
    square_crop = Augmentation(crop_scale=(0.5, 0.5), crop_ratio=(1, 1), flip=0.0)
    spans = []
    for seed in range(20):
        view = augment(circle, torch.tensor([2.0]), 96, square_crop, torch.Generator().manual_seed(seed))[0, 0] > 0.5
        if view.any() and not (view[:, 0].any() or view[:, -1].any()):
            spans.append(view.any(0).sum().item() / view.any(1).sum().item())
    assert spans
    np.testing.assert_allclose(spans, 1.0, atol=0.06)


def test_colour_transform_is_linear_in_the_colours():
    red = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)
    swap = torch.tensor([[[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]])
    assert colour_transform(red, swap, torch.zeros(1)).flatten().tolist() == [0, 1, 0]
