"""What each step takes from the stream of samples, and at which size: a pure function of the step (paper section 3.2, table 6).

Between the recipe and the loop. A step is so many micro-batches, whoever computes them: each process takes its share, one after
the other. All randomness of a micro-batch follows from its number, so that one process with two does what two do with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..data.loader import BatchSpec
from .recipes import Recipe, Scale


class Place(NamedTuple):
    """Where a run is: steps done, and samples taken from the stream."""

    step: int = 0
    position: int = 0


BEGINNING = Place()


class StepPlan:
    """The micro-batches of every step from a place on, for one of `processes` processes.

    Raises ValueError if the processes cannot share a step's micro-batches evenly.
    """

    def __init__(self, recipe: Recipe, place: Place = BEGINNING, rank: int = 0, processes: int = 1):
        if recipe.micro_batches % processes:
            raise ValueError(
                f"{processes} processes cannot share {recipe.micro_batches} micro-batches a step evenly: choose a "
                f"micro_batch that divides batch_size / processes ({recipe.batch_size} / {processes})"
            )
        self.recipe, self.place, self.rank, self.processes = recipe, place, rank, processes
        self._kinds = list(zip(recipe.scales, shares_of_scales(recipe, processes), strict=True))
        # All are drawn from the first step on, so that a resumed run, or another process, finds the same.
        self._which = np.random.default_rng(recipe.seed).integers(len(self._kinds), size=recipe.max_steps)[place.step :]
        images = np.array([scale.batch * share * processes for scale, share in self._kinds])
        self._starts = place.position + np.concatenate([[0], np.cumsum(images[self._which])])

    def scale(self, step: int) -> Scale:
        """Image size and micro-batch of a step."""
        return self._kinds[self._which[step - self.place.step]][0]

    def share(self, step: int) -> int:
        """Micro-batches of a step that each process takes."""
        return self._kinds[self._which[step - self.place.step]][1]

    def images(self, step: int) -> int:
        """Images of a step, over all processes."""
        return self.scale(step).batch * self.share(step) * self.processes

    def place_after(self, step: int) -> Place:
        """Where the run is once this step is done."""
        return Place(step + 1, int(self._starts[step + 1 - self.place.step]))

    def specs(self) -> Iterator[BatchSpec]:
        """This process's micro-batches, step after step."""
        for step in range(self.place.step, self.recipe.max_steps):
            yield from self.specs_of(step)

    def specs_of(self, step: int) -> list[BatchSpec]:
        """This process's micro-batches of one step."""
        scale, start, share = self.scale(step), int(self._starts[step - self.place.step]), self.share(step)
        numbers = range(self.rank * share, (self.rank + 1) * share)
        return [BatchSpec(start, self.images(step), n * scale.batch, (n + 1) * scale.batch, scale.size) for n in numbers]

    def seed_of(self, step: int, micro_batch: int) -> int:
        """Seed of the random numbers drawn on the device for this process's `micro_batch`-th of a step."""
        number = self.rank * self.share(step) + micro_batch
        return int(np.random.SeedSequence((self.recipe.seed, step, number)).generate_state(1, np.uint64)[0]) >> 1


def shares_of_scales(recipe: Recipe, processes: int) -> list[int]:
    """How many micro-batches each process takes at each scale: about as many pixels as at the base, and at least one.

    More, where few images are in each: where steps end among the samples depends on the micro-batch, by less than half of one.
    """
    pixels = max(1, recipe.micro_batches // processes) * recipe.micro_batch * recipe.image_size**2
    return [max(1, round(pixels / (scale.batch * scale.size**2))) for scale in recipe.scales]
