"""A square on its ground, and files of it."""

import io

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 60, 40
SQUARE = (10, 5, 30, 25)  # left, top, right, bottom


def encoded(pixels, kind="PNG") -> bytes:
    """An array, or an image, as a file."""
    out = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(out, kind)
    return out.getvalue()


def square_of(value, ground=0, dtype=np.uint8) -> np.ndarray:
    """The square on its ground, [40, 60]."""
    left, top, right, bottom = SQUARE
    page = np.full((HEIGHT, WIDTH), ground, dtype)
    page[top:bottom, left:right] = value
    return page
