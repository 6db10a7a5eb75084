"""Encoded images → RGB tensors: the view that evaluation takes, and the random crops, flips, tilts and colours of training.

Two ways to a training view. Photos, whose views are crops and flips alone: `crop_view` in a loader's worker decodes no more of
a JPEG than the crop needs. Small drawings: `decode` and `squash` once an image, then `augment` on whole batches, on the device
that holds them.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
RESIZED_PIXELS = 90_000_000  # most that a resize may make of an image
SIXTEEN_BIT = (None, "PNG", "PPM")  # formats whose 32-bit integers are 16-bit values; None: made in memory


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode (palette, grey, 16-bit, CMYK, RGBA; the first frame of an animation) as RGB, transparency on white.

    Raises ValueError for floats and 32-bit integers: which of them is white is not known.
    """
    if image.mode == "F" or (image.mode == "I" and (image.format not in SIXTEEN_BIT or image.getextrema()[1] > 65535)):
        raise ValueError(f"32-bit values, up to {image.getextrema()[1]:,}, have no known white: save it as 8 or 16 bits")
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image)
        image = page
    return image.convert("RGB")


def decode(encoded: bytes) -> Image.Image:
    """JPEG, PNG, WebP or another format that Pillow knows to an RGB image. Raises ValueError if the bytes are not an image.

    The orientation in EXIF is not applied: neither the reference's loaders nor torchvision's apply it, nor did the labellers of
    ImageNet see it. JPEGs are decoded by simplejpeg, to the same pixels as Pillow's in half the time.
    """
    if _jpeg_shape(encoded):
        try:
            return Image.fromarray(simplejpeg.decode_jpeg(encoded, "RGB"))
        except ValueError:  # Pillow has the last word on what is damaged
            pass
    try:
        return to_rgb(Image.open(io.BytesIO(encoded)))
    except UnidentifiedImageError as error:
        raise ValueError(f"unreadable image of {len(encoded)} bytes: no image that Pillow reads") from error
    except Exception as error:  # Pillow raises a dozen kinds, SyntaxError among them
        raise ValueError(f"unreadable image of {len(encoded)} bytes ({type(error).__name__}: {error})") from error


def squash(image: Image.Image, size: int) -> torch.Tensor:
    """The whole image as a square, aspect not kept: uint8 [3, size, size]."""
    pixels = np.asarray(image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@dataclass(frozen=True)
class Evaluation:
    """The view of an image that evaluation takes: its short side resized, then the square in its centre.

    image_size: side of the square, pixels. The short side is the reference's: 232/224 of image_size below 384 pixels (224 ->
    232), image_size itself from 384 on (512 -> 512).
    Pixel for pixel torchvision's `Resize` and `CenterCrop` of a PIL image.
    """

    image_size: int

    @property
    def resized_short_side(self) -> int:
        """The short side after the resize, pixels."""
        return self.image_size if self.image_size >= 384 else round(self.image_size * 232 / 224)

    def view(self, image: Image.Image) -> torch.Tensor:
        """The view of an RGB image: uint8 [3, image_size, image_size]. Raises ValueError for one so long and thin that it would
        not fit in memory once resized."""
        size, short = self.image_size, self.resized_short_side
        width, height = image.size
        least = min(width, height)
        if least != short:
            width, height = (short if side == least else int(short * side / least) for side in (width, height))
            if width * height > RESIZED_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too thin for a view")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)  # halves to the even pixel, as torchvision's
        return squash(image.crop((left, top, left + size, top + size)), size)


@dataclass(frozen=True)
class Augmentation:
    """How a training view is drawn. The defaults are the paper's: random resized crop and horizontal flip.

    crop_scale: share of the image's area in the view; above 1 shows a border around it. crop_ratio: width / height of the
    crop. flip: probability. rotate: degrees either way. shear: either way. colour: 0 (none) to 1; strength of random
    brightness, contrast, saturation and hue.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    rotate: float = 0.0
    shear: float = 0.0
    colour: float = 0.0

    @property
    def only_crops(self) -> bool:
        """Whether a view is a crop inside the image, perhaps flipped: what `crop_view` draws while it decodes."""
        return not (self.rotate or self.shear or self.colour) and self.crop_scale[1] <= 1


AUGMENTATIONS = {
    "paper": Augmentation(),
    "drawings": Augmentation(crop_scale=(0.7, 1.3), crop_ratio=(0.8, 1.25), rotate=10, shear=0.1, colour=0.3),
    "none": Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0),
}


def random_crop_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Random resized crop: (left, top, width, height) in pixels, always inside an image of width x height.

    scale: share of the area, uniform. ratio: width / height, uniform in its logarithm. As torchvision's: of ten draws the first
    that fits the image; if none does, the largest centre crop with a ratio within the bounds.
    """
    drawn, low, high = rng.random(20).tolist(), math.log(ratio[0]), math.log(ratio[1])
    for share, place in zip(drawn[:10], drawn[10:], strict=True):  # plain numbers: arrays of ten cost more than they save
        area = width * height * (scale[0] + (scale[1] - scale[0]) * share)
        aspect = math.exp(low + (high - low) * place)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= w <= width and 1 <= h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (width - w) // 2, (height - h) // 2, w, h


def crop_view(encoded: bytes, size: int, how: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    """A random view straight from an encoded image: random resized crop and flip of `how`, uint8 [3, size, size].

    Tilts and colours of `how` are left to `augment`. The same state of rng gives the same view; its crop does not depend on
    the decoder. JPEGs are decoded by simplejpeg, reduced to a half, a quarter and so on if the crop is that much larger than
    the view. Raises ValueError if the image is unreadable or truncated, be it by its end marker alone.
    """
    shape, image = _jpeg_shape(encoded), None
    width, height = shape or (image := decode(encoded)).size
    box = random_crop_box(width, height, how.crop_scale, how.crop_ratio, rng)
    flip = rng.random() < how.flip
    view = _jpeg_crop(encoded, (width, height), box, size) if shape else None
    if view is None:
        left, top, w, h = box
        image = image or decode(encoded)
        view = squash(image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h)), size)
    return view.flip(-1) if flip else view


def _jpeg_shape(encoded: bytes) -> tuple[int, int] | None:
    """Width and height if it is a JPEG for simplejpeg; None leaves it to Pillow."""
    if not encoded.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return None
    # What RGB an ink is, decoders decide for themselves: CMYK is left to the one that all else here is decoded with. And Pillow
    # refuses decompression bombs.
    if colours not in ("YCbCr", "Gray", "RGB") or width * height > (Image.MAX_IMAGE_PIXELS or math.inf):
        return None
    return width, height


def _jpeg_crop(encoded: bytes, shape: tuple[int, int], box: tuple[int, int, int, int], size: int) -> torch.Tensor | None:
    """The box (left, top, width, height) of a JPEG of shape (width, height), resized: uint8 [3, size, size]; None if refused.

    The decoder shrinks by whole eighths in the DCT, at least by half, and not so far that the crop gets smaller than the view.
    """
    (width, height), (left, top, w, h) = shape, box
    least = {"min_width": math.ceil(width * size / w), "min_height": math.ceil(height * size / h), "min_factor": 2}
    try:
        # Strict: what is truncated is refused.
        pixels = simplejpeg.decode_jpeg(encoded, "RGB", **least)
    except ValueError:
        return None
    down, across = pixels.shape[0] / height, pixels.shape[1] / width
    w, h = round(w * across), round(h * down)
    left, top = min(round(left * across), pixels.shape[1] - w), min(round(top * down), pixels.shape[0] - h)
    # Packed, with colours innermost, the resize takes its vectorised path.
    crop = torch.from_numpy(np.ascontiguousarray(pixels[top : top + h, left : left + w])).permute(2, 0, 1)[None]
    return F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]


def augment(
    images: torch.Tensor, aspects: torch.Tensor, size: int, how: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """A random view of each image: uint8 [B, 3, S, S] squashed squares -> float32 [B, 3, size, size] in 0..1.

    aspects: float [B], width / height of the images before they were squashed, so that crops keep the true shape.
    generator: on the CPU; the same state gives the same views.
    """
    theta = random_affine(len(images), aspects, how, generator).to(images.device)
    grid = F.affine_grid(theta, (len(images), 3, size, size), align_corners=False)
    views = F.grid_sample(images.float().div_(255), grid, mode="bilinear", padding_mode="border", align_corners=False)
    if how.colour:
        matrix, shift = _random_colour(len(images), how.colour, generator)
        views = colour_transform(views, matrix.to(views.device), shift.to(views.device))
    return views


def recoloured(image: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """An image, uint8 [3, H, W], in the random colours that `augment` gives, of this strength."""
    matrix, shift = _random_colour(1, strength, generator)
    return colour_transform(image[None] / 255, matrix, shift)[0].mul_(255).round_().to(torch.uint8)


def random_affine(count: int, aspects: torch.Tensor, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Where in the image each pixel of the view looks: float32 [count, 2, 3] for affine_grid."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(count).uniform_(low, high, generator=generator)

    area, ratio = uniform(*how.crop_scale), torch.exp(uniform(*(math.log(r) for r in how.crop_ratio)))
    width = (area * ratio / aspects.cpu()).sqrt()  # of the squashed square, whose sides are 1
    height = (area / ratio * aspects.cpu()).sqrt()
    over = torch.maximum(width, height).clamp(min=1.0) / max(1.0, math.sqrt(how.crop_scale[1]))
    over = over.clamp(min=1.0)  # a crop taller or wider than allowed is shrunk
    width, height = width / over, height / over
    flip = torch.where(uniform(0, 1) < how.flip, -1.0, 1.0)
    angle, shear = uniform(-how.rotate, how.rotate).deg2rad(), uniform(-how.shear, how.shear)
    x, y = ((1 - side).abs() * uniform(-1, 1) for side in (width, height))
    cos, sin = angle.cos(), angle.sin()
    rows = [width * cos * flip, width * (shear * cos - sin), x, height * sin * flip, height * (cos + shear * sin), y]
    return torch.stack(rows, dim=1).reshape(count, 2, 3)


def _random_colour(count: int, strength: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Saturation, hue, brightness and contrast as one linear map: float32 [count, 3, 3] and [count]."""

    def around_one(width: float) -> torch.Tensor:
        return torch.empty(count, 1, 1).uniform_(1 - width, 1 + width, generator=generator)

    grey = torch.tensor(LUMA).expand(3, 3)
    saturation = around_one(0.8 * strength)
    mix = saturation * torch.eye(3) + (1 - saturation) * grey
    angle = (around_one(0.25 * strength) - 1) * math.pi  # about the grey axis
    k = torch.full((3,), 1 / math.sqrt(3))
    cross = torch.tensor([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    hue = angle.cos() * torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * torch.outer(k, k)
    contrast = around_one(0.8 * strength)
    return mix @ hue * contrast * around_one(0.5 * strength), (1 - contrast).flatten() * 0.5


def colour_transform(images: torch.Tensor, matrix: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Apply a linear map of the colours, clipped to 0..1: images [B, 3, H, W], matrix [B, 3, 3], shift [B]."""
    flat = torch.baddbmm(shift[:, None, None].expand(-1, 3, 1), matrix, images.flatten(2))
    return flat.clamp_(0, 1).reshape(images.shape)
