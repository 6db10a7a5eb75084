"""A square on its ground."""

import numpy as np

WIDTH, HEIGHT = 60, 40
SQUARE = (10, 5, 30, 25)  # left, top, right, bottom


def square_of(value, ground=0, dtype=np.uint8) -> np.ndarray:
    """The square on its ground, [40, 60]."""
    left, top, right, bottom = SQUARE
    page = np.full((HEIGHT, WIDTH), ground, dtype)
    page[top:bottom, left:right] = value
    return page
