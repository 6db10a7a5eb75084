"""Decoding and augmentation."""

import io

import numpy as np
import pytest
import simplejpeg
import torch
from files import encode
from PIL import Image

from catlip_lite.data import images as module
from catlip_lite.data.images import (
    AUGMENTATIONS,
    Augmentation,
    Evaluation,
    augment,
    colour_transform,
    crop_view,
    decode,
    random_crop_box,
)

PAPER, WHOLE = AUGMENTATIONS["paper"], Augmentation(crop_scale=(1, 1), crop_ratio=(1.6, 1.6), flip=0.0)


def gradient(width=400, height=250) -> Image.Image:
    """Red grows to the right, green downwards; blue is waves that are neither."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 128 + 100 * np.sin(x / 40) * np.cos(y / 30)
    return Image.fromarray(np.stack([x * 255 / width, y * 255 / height, waves], axis=-1).astype(np.uint8))


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.float() - b.float()).abs().mean().item()


def test_transparency_becomes_white():
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert decode(encode(image)).getpixel((0, 0)) == (255, 255, 255)


def test_half_transparency_is_mixed_with_white():
    assert decode(encode(Image.new("RGBA", (2, 2), (255, 0, 0, 128)))).getpixel((0, 0)) == (255, 127, 127)


def test_transparent_grey_is_mixed_with_white():
    assert decode(encode(Image.new("LA", (2, 2), (0, 51)))).getpixel((0, 0)) == (204, 204, 204)


def test_transparent_colours_of_a_palette_are_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    decoded = decode(encode(image, transparency=0))
    assert (decoded.getpixel((0, 0)), decoded.getpixel((1, 0))) == ((255, 255, 255), (40, 50, 60))


@pytest.mark.parametrize(("value", "expected"), [(65535, 255), (0, 0), (32896, 128), (257 * 7, 7)])
def test_sixteen_bit_grey_is_scaled_to_eight(value, expected):
    image = Image.fromarray(np.full((2, 2), value, dtype=np.uint16))
    assert decode(encode(image)).getpixel((0, 0)) == (expected,) * 3


@pytest.mark.parametrize("value", [100, 60_000, 10**9, 0.5])
def test_32_bit_values_whose_white_is_unknown_are_refused(value):
    pixels = np.full((2, 2), value, np.float32 if isinstance(value, float) else np.int32)
    with pytest.raises(ValueError, match=f"32-bit values, up to {value:,}, have no known white: save it as 8 or 16 bits"):
        decode(encode(Image.fromarray(pixels), "TIFF"))


def test_bilevel_images_are_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    decoded = decode(encode(image))
    assert (decoded.getpixel((0, 0)), decoded.getpixel((1, 0))) == ((0, 0, 0), (255, 255, 255))


@pytest.mark.parametrize(
    ("ink", "rgb"), [((0, 0, 0, 0), (255, 255, 255)), ((0, 255, 255, 0), (255, 0, 0)), ((0,) * 3 + (255,), (0,) * 3)]
)
def test_cmyk_jpegs_are_read_whose_adobe_inks_are_inverted(ink, rgb):
    encoded = encode(Image.new("CMYK", (8, 8), ink), "JPEG", quality=100)
    assert b"Adobe" in encoded  # whose inks are stored as 255 - ink
    np.testing.assert_allclose(decode(encoded).getpixel((4, 4)), rgb, atol=2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    encoded = encode(first, kind, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(encoded)).n_frames == 2
    assert decode(encoded).getpixel((4, 4)) == (255, 0, 0)


def test_the_orientation_in_exif_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert decode(encode(gradient(), "JPEG", exif=exif)).size == (400, 250)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 20}])
@pytest.mark.parametrize("shape", [(400, 250), (37, 53), (1, 1)])
def test_jpegs_are_decoded_to_pillows_pixels(shape, options, mode, monkeypatch):
    encoded = encode(gradient(*shape).convert(mode), "JPEG", **options)
    fast = np.asarray(decode(encoded))
    monkeypatch.setattr(module, "_jpeg_shape", lambda _: None)
    np.testing.assert_array_equal(fast, np.asarray(decode(encoded)))


def test_what_is_no_image_is_said_with_its_size():
    with pytest.raises(ValueError, match="unreadable image of 5 bytes"):
        decode(b"hello")


@pytest.mark.parametrize("kept", [0.999, 0.5])
def test_a_truncated_jpeg_is_not_decoded(kept):
    encoded = encode(gradient(), "JPEG")
    with pytest.raises(ValueError, match="unreadable image of .*truncated"):
        decode(encoded[: int(len(encoded) * kept)])


def test_a_decompression_bomb_is_not_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400 * 250 // 3)
    with pytest.raises(ValueError, match="unreadable image of .*DecompressionBomb"):
        decode(encode(gradient(), "JPEG"))


def test_evaluation_takes_the_middle():
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (100, 0, 200, 100))
    assert (Evaluation(32).view(image)[:, :, 2:-2] == 255).all()


@pytest.mark.parametrize(("size", "short_side"), [(224, 232), (32, 33), (383, 397), (384, 384), (512, 512)])
def test_evaluations_short_side_is_the_references(size, short_side):
    assert Evaluation(size).resized_short_side == short_side


@pytest.mark.parametrize("shape", [(500, 375), (333, 500), (232, 232), (233, 640), (1001, 232), (90, 61), (7, 400), (512, 513)])
@pytest.mark.parametrize("size", [224, 512, 60, 33])
def test_evaluation_is_torchvisions_resize_and_centre_crop(shape, size):
    transforms = pytest.importorskip("torchvision.transforms")
    pixels = np.random.default_rng(0).integers(0, 256, (shape[1], shape[0], 3), dtype=np.uint8)
    image, ours = Image.fromarray(pixels), Evaluation(size)
    resize = transforms.Resize(ours.resized_short_side, transforms.InterpolationMode.BILINEAR)
    theirs = transforms.CenterCrop(size)(resize(image))
    np.testing.assert_array_equal(ours.view(image).permute(1, 2, 0).numpy(), np.asarray(theirs))


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_an_image_too_thin_to_resize_is_refused(shape):
    with pytest.raises(ValueError, match=f"{shape[0]} x {shape[1]} pixels are too thin for a view"):
        Evaluation(224).view(Image.new("RGB", shape, "white"))


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


def test_crop_boxes_lie_in_the_image_with_the_areas_and_ratios_asked_for():
    rng = draw(0)
    boxes = np.array([random_crop_box(500, 375, (0.08, 1.0), (3 / 4, 4 / 3), rng) for _ in range(2000)])
    left, top, width, height = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + width <= 500).all()
    assert (top + height <= 375).all()
    assert 0.74 < (width / height).min() < 0.8
    assert 1.3 < (width / height).max() < 1.35
    assert 0.075 < (width * height / (500 * 375)).min() < 0.1
    np.testing.assert_allclose((left / (500 - width + 1e-9)).mean(), 0.5, atol=0.03)  # as often left as right


def test_areas_are_uniform_where_every_draw_fits():
    rng = draw(0)
    areas = [np.prod(random_crop_box(1000, 1000, (0.1, 0.5), (1, 1), rng)[2:]) / 1e6 for _ in range(2000)]
    np.testing.assert_allclose(np.quantile(areas, [0.25, 0.5, 0.75]), [0.2, 0.3, 0.4], atol=0.02)


@pytest.mark.parametrize(
    ("shape", "box"),
    [((1000, 100), (433, 0, 133, 100)), ((100, 1000), (0, 433, 100, 133)), ((120, 100), (0, 0, 120, 100))],
)
def test_a_crop_that_cannot_fit_becomes_the_largest_in_the_centre(shape, box):
    assert random_crop_box(*shape, (4.0, 4.0), (3 / 4, 4 / 3), draw(0)) == box


def test_an_image_of_one_pixel_has_a_crop():
    assert random_crop_box(1, 1, (0.08, 1.0), (3 / 4, 4 / 3), draw(0)) == (0, 0, 1, 1)


def test_only_crops_is_true_of_photos_and_false_of_drawings():
    assert AUGMENTATIONS["paper"].only_crops
    assert not AUGMENTATIONS["drawings"].only_crops
    assert not Augmentation(crop_scale=(0.5, 1.2)).only_crops


def both_paths(encoded: bytes, size: int, how: Augmentation, monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Views of the same ten crops, by simplejpeg and by Pillow alone."""
    fast = [crop_view(encoded, size, how, draw(seed)) for seed in range(10)]
    monkeypatch.setattr(module, "_jpeg_shape", lambda _: None)
    return list(zip(fast, (crop_view(encoded, size, how, draw(seed)) for seed in range(10)), strict=True))


JPEGS = pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
# Below 128 pixels a side, JPEGs of 400 x 250 are decoded at a fraction of their size.
SIZES = pytest.mark.parametrize("size", [224, 96, 48])


@JPEGS
@SIZES
def test_a_whole_jpegs_view_is_pillows_within_two_levels(size, options, monkeypatch):
    for fast, slow in both_paths(encode(gradient(), "JPEG", quality=95, **options), size, WHOLE, monkeypatch):
        assert fast.shape == (3, size, size)
        assert fast.dtype == torch.uint8
        assert mean_difference(fast, slow) < 2
        assert mean_difference(fast, slow.flip(-1)) > 20  # the measure tells views apart


@JPEGS
@SIZES
def test_a_jpegs_crop_is_pillows_within_half_a_pixel(size, options, monkeypatch):
    for fast, slow in both_paths(encode(gradient(), "JPEG", quality=95, **options), size, PAPER, monkeypatch):
        a_pixel = mean_difference(slow[:, 1:], slow[:, :-1]) + mean_difference(slow[..., 1:], slow[..., :-1])
        assert mean_difference(fast, slow) < 1 + a_pixel / 2


def test_large_jpegs_are_decoded_no_larger_than_the_crop_needs(monkeypatch):
    shapes = []

    def watched(*args, **kwargs):
        pixels = decode_jpeg(*args, **kwargs)
        shapes.append(pixels.shape[:2])
        return pixels

    decode_jpeg = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", watched)
    encoded = encode(gradient(1600, 1000), "JPEG")
    for size in (600, 500, 250, 125):
        crop_view(encoded, size, WHOLE, draw(0))
    assert shapes == [(1000, 1600), (500, 800), (250, 400), (125, 200)]


def test_a_flipped_view_is_exactly_the_mirrored_one():
    encoded = encode(gradient(), "JPEG")
    always, never = (Augmentation(flip=p) for p in (1.0, 0.0))
    plain, mirrored = (crop_view(encoded, 64, how, draw(3)) for how in (never, always))
    assert torch.equal(mirrored, plain.flip(-1))
    assert not torch.equal(mirrored, plain)


def test_half_of_the_views_are_flipped():
    encoded = encode(gradient(), "JPEG")
    views = [crop_view(encoded, 16, PAPER, draw(seed))[0].float() for seed in range(300)]
    assert 120 < sum((view[:, 0] > view[:, -1]).all().item() for view in views) < 180


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_of_any_colours_become_rgb(mode):
    image = Image.new("RGB", (64, 64), (200, 200, 200) if mode == "L" else (200, 100, 50)).convert(mode)
    expected = torch.tensor(image.convert("RGB").getpixel((0, 0)), dtype=torch.float)
    view = crop_view(encode(image, "JPEG", quality=95), 32, PAPER, draw(0)).float()
    assert (view - expected[:, None, None]).abs().max() <= 4


def test_a_decompression_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400 * 250 // 3)  # Pillow refuses twice as many
    with pytest.raises(ValueError, match="unreadable image of .*DecompressionBomb"):
        crop_view(encode(gradient(), "JPEG"), 32, PAPER, draw(0))


def test_transparency_is_white_in_a_view():
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert (crop_view(encode(image), 16, PAPER, draw(0)) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_show_the_same_crop(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    other = crop_view(encode(gradient(), kind, **options), 64, PAPER, draw(1))
    assert mean_difference(other, crop_view(encode(gradient(), "JPEG", quality=95), 64, PAPER, draw(1))) < 2


def test_a_view_depends_on_the_generators_state_alone():
    encoded = encode(gradient(), "JPEG")
    assert torch.equal(crop_view(encoded, 32, PAPER, draw(5)), crop_view(encoded, 32, PAPER, draw(5)))
    assert not torch.equal(crop_view(encoded, 32, PAPER, draw(5)), crop_view(encoded, 32, PAPER, draw(6)))


@pytest.mark.parametrize("with_simplejpeg", [True, False])
@pytest.mark.parametrize("kept", [0.999, 0.5, 0.02])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpegs_are_unreadable(kept, progressive, with_simplejpeg, monkeypatch):
    if not with_simplejpeg:
        monkeypatch.setattr(module, "_jpeg_shape", lambda _: None)
    encoded = encode(gradient(), "JPEG", progressive=progressive)
    crop_view(encoded, 32, PAPER, draw(0))
    with pytest.raises(ValueError, match="(?i)unreadable image of .* bytes .*truncated"):
        crop_view(encoded[: int(len(encoded) * kept)], 32, PAPER, draw(0))


@pytest.mark.parametrize("encoded", [b"", b"hello", b"\xff\xd8\xff\xe0 no more"])
def test_what_is_no_image_has_no_view(encoded):
    with pytest.raises(ValueError, match=f"unreadable image of {len(encoded)} bytes"):
        crop_view(encoded, 32, PAPER, draw(0))
