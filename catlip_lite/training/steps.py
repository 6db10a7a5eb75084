"""What each step takes from the stream of samples, and at which size: a pure function of the step (paper section 3.2, table 6).

A step is so many micro-batches, whoever computes them: each process takes its share of them, one after the other. All
randomness of a micro-batch follows from its number, so that one process with two does what two processes do with one each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..data.batches import BatchSpec
from .multi_scale import Scale, micro_batches, scales, size_of_steps
from .recipes import Recipe


@dataclass(frozen=True)
class Place:
    """Where a run is: steps done, and samples taken from the stream."""

    step: int = 0
    position: int = 0


class StepPlan:
    """The micro-batches of every step from a place on, for one of `processes` processes.

    Raises ValueError if the processes cannot share a step's micro-batches evenly.
    """

    def __init__(self, recipe: Recipe, patch: int, place: Place = Place(), rank: int = 0, processes: int = 1):
        if recipe.micro_batches % processes:
            raise ValueError(
                f"{processes} processes cannot share {recipe.micro_batches} micro-batches a step evenly: choose a "
                f"micro_batch that divides batch_size / processes ({recipe.batch_size} / {processes})"
            )
        self.recipe, self.place, self.rank = recipe, place, rank
        self.processes = processes
        self.scales = scales(recipe.image_size, recipe.multi_scale, recipe.micro_batch, patch=patch)
        base, share = Scale(recipe.image_size, recipe.micro_batch), recipe.micro_batches // processes
        self._shares = [micro_batches(scale, base, share) for scale in self.scales]
        steps = np.arange(place.step, recipe.max_steps)
        self._scale = size_of_steps(steps, recipe.seed, len(self.scales))
        images = [scale.batch * share * processes for scale, share in zip(self.scales, self._shares, strict=True)]
        sizes = np.array(images)[self._scale]
        self._starts = place.position + np.concatenate([[0], np.cumsum(sizes)])

    def scale(self, step: int) -> Scale:
        """Image size and micro-batch of a step."""
        return self.scales[self._scale[step - self.place.step]]

    def share(self, step: int) -> int:
        """Micro-batches of a step that each process takes."""
        return self._shares[self._scale[step - self.place.step]]

    def place_after(self, step: int) -> Place:
        """Where the run is once this step is done."""
        return Place(step + 1, int(self._starts[step + 1 - self.place.step]))

    def images(self, step: int) -> int:
        """Images of a step, over all processes."""
        return self.scale(step).batch * self.share(step) * self.processes

    def specs(self) -> Iterator[BatchSpec]:
        """This process's micro-batches, step after step."""
        for step in range(self.place.step, self.recipe.max_steps):
            yield from self.specs_of(step)

    def specs_of(self, step: int) -> list[BatchSpec]:
        """This process's micro-batches of one step."""
        scale, start = self.scale(step), int(self._starts[step - self.place.step])
        share = self.share(step)
        numbers = range(self.rank * share, (self.rank + 1) * share)
        size = self.images(step)
        return [BatchSpec(start, size, n * scale.batch, (n + 1) * scale.batch, scale.size) for n in numbers]

    def seed_of(self, step: int, micro_batch: int) -> int:
        """Seed of the random numbers drawn on the device for this process's `micro_batch`-th of a step."""
        number = self.rank * self.share(step) + micro_batch
        return int(np.random.SeedSequence((self.recipe.seed, step, number)).generate_state(1, np.uint64)[0] >> 1)
