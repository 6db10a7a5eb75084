"""Classifiers on frozen features, float32 [N, D] (paper section 4.2, figure 5): probes solved or trained, nearest images.

Ridge regression in closed form and logistic regression by L-BFGS choose their L2 penalty on validation images and are then
fitted to all; both see features standardised and turned into the eigenvectors of their covariance, where the closed form is a
division and L-BFGS knows the curvature it starts with. `train_heads` is the paper's recipe, from any start.

On a Mac, which has float64 on its processor alone, all of it is computed there, whatever the device: see `exact_device`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional as F

from ..models import Head
from ..models.precision import exact_device
from .metrics import top_k

RIDGE_PENALTIES = tuple(10.0**p for p in range(2, -6, -1))
LOGISTIC_PENALTIES = tuple(10.0 ** (p / 2) for p in range(4, -9, -1))  # each over C, as the curvature of the loss is
LEAST_ON_PATH = 20_000  # images
PATH_TOLERANCE = 3e-3
CHUNK_ELEMENTS = {"cpu": 4_000_000, "cuda": 128_000_000}  # of logits that are in memory at a time
LEARNING_RATES = (3e-5, 3e-4, 3e-3, 3e-2)  # the paper's, and what few images need
AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 26}  # weights of heads that are trained together: on CPUs, what a cache holds
VOTE_TEMPERATURE = 0.05  # a neighbour whose cosine is 0.05 higher counts 2.7 times as much
SIMILARITIES_AT_ONCE = {"cpu": 16_000_000, "cuda": 512_000_000}


@dataclass(frozen=True)
class Examples:
    """What a classifier learns from, as a `Part` is. features: float32 [N, D]; targets: int64 [N], classes 0..C-1."""

    features: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


# ---------------------------------------------------------------- solved


@dataclass
class Fit:
    """A solved probe. head: fitted to training and validation images; validated: to training images alone, for temperatures.

    penalty: lambda in `mean loss + lambda / 2 |W|^2` (logistic: over the number of classes), W the weights of standardised
    features.
    """

    head: Head
    validated: Head
    penalty: float


@dataclass(frozen=True)
class Basis:
    """Where features are white: (x - mean) / std @ directions has variance `values` and no correlation.

    mean, std: float32 [D]; directions: float32 [D, R], R = min(D, images); values: float32 [R], ascending or not.
    """

    mean: torch.Tensor
    std: torch.Tensor
    directions: torch.Tensor
    values: torch.Tensor

    def turn(self, features: torch.Tensor) -> torch.Tensor:
        """Features float32 [n, D] as coordinates float32 [n, R]."""
        return ((features - self.mean) / self.std) @ self.directions

    def head(self, weight: torch.Tensor, bias: torch.Tensor) -> Head:
        """The classifier of features as they are, from one of coordinates: weight [R, C], bias [C]."""
        plain = (self.directions @ weight).div_(self.std[:, None])
        return Head(plain.T.contiguous().cpu(), (bias - self.mean @ plain).cpu())

    def theta(self, head: Head) -> torch.Tensor:
        """The reverse of `head`: float32 [R + 1, C], the weights of coordinates and, as last row, the biases."""
        plain, bias = head.weight.T.to(self.mean.device), head.bias.to(self.mean.device)
        return torch.cat([self.directions.T @ (plain * self.std[:, None]), (bias + self.mean @ plain)[None]])


def basis_of(parts: Sequence[Examples], device: torch.device) -> Basis:
    """The basis of all parts' features. A feature that never changes is left alone (std 1)."""
    images, width = sum(len(part) for part in parts), parts[0].features.shape[1]
    total = torch.zeros(width, dtype=torch.float64, device=device)
    for features, _ in _chunks(parts, width, device):
        total += features.sum(0, dtype=torch.float64)
    mean = (total / images).float()
    square = torch.zeros(width, dtype=torch.float64, device=device)
    gram = torch.zeros((width, width), dtype=torch.float64, device=device) if images > width else None
    centred = []
    for features, _ in _chunks(parts, width, device):
        features = features - mean
        square += features.square().sum(0, dtype=torch.float64)
        if gram is None:  # fewer images than features: their own products say as much, and are fewer
            centred.append(features)
        else:
            gram += features.T @ features
    std = (square / images).sqrt().float()
    std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
    if gram is not None:
        values, directions = torch.linalg.eigh(gram / images / (std[:, None] * std).double())
        return Basis(mean, std, directions.float(), values.clamp_min_(0).float())
    rows = torch.cat(centred) / std
    values, left = torch.linalg.eigh((rows @ rows.T).double() / images)
    kept = values > 1e-7 * values[-1].clamp_min(1e-12)
    values, left = values[kept], left[:, kept]
    directions = rows.T @ (left / (values * images).sqrt()).float()
    return Basis(mean, std, directions, values.float())


def ridge_probe(
    train: Examples, validation: Examples, classes: int, penalties: Sequence[float] = RIDGE_PENALTIES,
    device: str | torch.device = "cpu",
) -> Fit:  # fmt: skip
    """Least squares on centred one-hot targets, all penalties at once: one eigendecomposition of the D x D covariance.

    Its scores are no logits: they sum to 1 over the classes, whatever the image. Raises ValueError for parts that are empty or
    hold targets outside 0..classes-1.
    """
    device = _checked(train, validation, classes, device)
    basis = basis_of([train], device)
    sums, counts = _class_sums([train], basis, classes)
    found = {}
    for penalty in penalties:
        head = basis.head(*_ridge_weights(basis, sums, counts, penalty))
        found[penalty] = _validate(head, validation, device, _square_error)
    best = max(found, key=found.__getitem__)
    validated = _without_absent(basis.head(*_ridge_weights(basis, sums, counts, best)), counts)
    basis = basis_of([train, validation], device)
    head = basis.head(*_ridge_weights(basis, *_class_sums([train, validation], basis, classes), best))
    return Fit(head, validated, best)


def _ridge_weights(basis: Basis, sums: torch.Tensor, counts: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    images = counts.sum()
    return sums / images / (basis.values + penalty)[:, None], (counts / images).float()


def _class_sums(parts: Sequence[Examples], basis: Basis, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of each class's coordinates, float32 [R, C], and number of its images, float64 [C]."""
    device = basis.mean.device
    sums = torch.zeros((classes, len(basis.mean)), device=device)
    counts = torch.zeros(classes, dtype=torch.float64, device=device)
    for features, targets in _chunks(parts, len(basis.mean), device):
        sums.index_add_(0, targets, (features - basis.mean) / basis.std)
        counts += torch.bincount(targets, minlength=classes)
    return (sums @ basis.directions).T, counts


def logistic_probe(
    train: Examples,
    validation: Examples,
    classes: int,
    penalties: Sequence[float] = LOGISTIC_PENALTIES,
    device: str | torch.device = "cpu",
    *,
    tolerance: float = 1e-3,
) -> Fit:
    """Multinomial logistic regression: from the strongest penalty to the weakest, each fit starting where the last ended.

    The path is walked on a quarter of the training images, 20,000 at least, drawn with a fixed seed (a penalty of n images is
    n / N of it for N, as scikit-learn's C has it), and left when two penalties in a row validate worse than the best.
    penalties: in units of 1 / classes. tolerance: a fit ends when its gradient is so small a share of that at zero weights.
    Raises ValueError as `ridge_probe` does.
    """
    device = _checked(train, validation, classes, device)
    fewer = _some(train, max(LEAST_ON_PATH, len(train) // 4))
    problem = Problem.of([fewer], classes, device)
    theta, found, heads = problem.start(), {}, {}
    for penalty in sorted(penalties, reverse=True):
        theta = problem.minimise(theta, penalty / classes, PATH_TOLERANCE)
        heads[penalty] = _without_absent(problem.basis.head(theta[:-1], theta[-1]), problem.counts)
        found[penalty] = _validate(heads[penalty], validation, device, _cross_entropy)
        leader = max(found, key=found.__getitem__)
        heads = {p: head for p, head in heads.items() if p in (leader, penalty)}
        if len(found) > 2 and all(top1 < found[leader][0] for top1, _ in list(found.values())[-2:]):
            break
    validated = heads[leader]
    everything = Problem.of([train, validation], classes, device)
    best = leader * len(fewer) / (len(train) + len(validation))
    start = everything.basis.theta(Head(validated.weight, torch.where(validated.bias.isinf(), 0.0, validated.bias)))
    theta = everything.minimise(start, best / classes, tolerance)
    head = everything.basis.head(theta[:-1], theta[-1])
    return Fit(head, validated, leader)


@dataclass(frozen=True)
class Problem:
    """Softmax cross-entropy over coordinates: parts of float32 [n, R] with targets int64 [n]; counts: images a class.

    A point is theta, float32 [R + 1, C]: the weights of the coordinates and, as last row, the biases.
    """

    parts: list[tuple[torch.Tensor, torch.Tensor]]
    basis: Basis
    counts: torch.Tensor

    @classmethod
    def of(cls, parts: Sequence[Examples], classes: int, device: torch.device) -> Problem:
        """The problem of all parts' images."""
        basis = basis_of(parts, device)
        turned = [(basis.turn(features), targets) for features, targets in _chunks(parts, parts[0].features.shape[1], device)]
        counts = sum(torch.bincount(targets, minlength=classes) for _, targets in turned)
        return cls(turned, basis, counts.double())

    def start(self) -> torch.Tensor:
        """No weights, and each class as probable as it is frequent."""
        theta = torch.zeros((len(self.basis.values) + 1, len(self.counts)), device=self.basis.mean.device)
        theta[-1] = ((self.counts + 0.5) / (self.counts.sum() + 0.5 * len(self.counts))).log()
        return theta

    def loss(self, theta: torch.Tensor, penalty: float) -> tuple[float, torch.Tensor]:
        """Mean cross-entropy in nats with the penalty on all but the biases, and its gradient float32 [R + 1, C]."""
        gradient, images = torch.zeros_like(theta), int(self.counts.sum())
        total = torch.zeros((), dtype=torch.float64, device=theta.device)
        rows = max(1, CHUNK_ELEMENTS[theta.device.type] // theta.shape[1])
        for coordinates, targets in self.parts:
            for x, y in zip(coordinates.split(rows), targets.split(rows), strict=True):
                logp = torch.log_softmax(torch.addmm(theta[-1], x, theta[:-1]), dim=1)
                total -= logp.gather(1, y[:, None]).sum(dtype=torch.float64)
                residual = logp.exp_()
                residual[torch.arange(len(y), device=y.device), y] -= 1
                gradient[:-1].addmm_(x.T, residual)
                gradient[-1] += residual.sum(0)
        gradient /= images
        gradient[:-1].add_(theta[:-1], alpha=penalty)
        return float(total / images + 0.5 * penalty * theta[:-1].square().sum(dtype=torch.float64)), gradient

    def minimise(self, theta: torch.Tensor, penalty: float, tolerance: float, most: int = 500) -> torch.Tensor:
        """L-BFGS from `theta`, in units in which the curvature at zero weights and equal classes is 1: the least point.

        It ends when the gradient, in those units, is `tolerance` of that at zero weights, or after `most` looks at all images.
        """
        variances = torch.cat([self.basis.values + penalty * len(self.counts), torch.ones_like(self.basis.values[:1])])
        unit = (variances / len(self.counts))[:, None].clamp_min_(1e-9).rsqrt()
        goal = tolerance * float((self._gradient_at_zero * unit).norm())
        point = (theta / unit).requires_grad_()
        solver = torch.optim.LBFGS(
            [point], max_iter=most, max_eval=most, history_size=10, line_search_fn="strong_wolfe", tolerance_change=0.0
        )

        def look() -> float:
            value, gradient = self.loss(point.detach() * unit, penalty)
            point.grad = gradient.mul_(unit)
            if float(point.grad.norm()) <= goal:
                point.grad.zero_()  # small enough: which the solver would judge by its largest number
            return value

        solver.step(look)
        return point.detach() * unit

    @cached_property
    def _gradient_at_zero(self) -> torch.Tensor:
        return self.loss(torch.zeros_like(self.start()), 0.0)[1]


def _chunks(parts: Sequence[Examples], width: int, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Features float32 [n, D] and targets int64 [n], as many rows at a time as memory is meant for, on the device."""
    rows = max(1, CHUNK_ELEMENTS[device.type] // width)
    for part in parts:
        for first in range(0, len(part), rows):
            features = np.ascontiguousarray(part.features[first : first + rows], np.float32)
            targets = np.ascontiguousarray(part.targets[first : first + rows], np.int64)
            yield torch.from_numpy(features).to(device), torch.from_numpy(targets).to(device)


def _some(train: Examples, most: int) -> Examples:
    if len(train) <= most:
        return train
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:most])
    return Examples(train.features[rows], train.targets[rows])


def _validate(head: Head, part: Examples, device: torch.device, surprise: Callable) -> tuple[float, float]:
    """Top-1, and minus the mean surprise, which decides between penalties that are right equally often.

    surprise: of scores float32 [n, C] and targets int64 [n], float32 [n]; what is infinite, of classes without images, is left.
    """
    weight, bias, hits, total = head.weight.T.to(device), head.bias.to(device), 0, 0.0
    for features, targets in _chunks([part], max(part.features.shape[1], len(bias)), device):
        scores = torch.addmm(bias, features, weight)
        hits += int((scores.argmax(1) == targets).sum())
        found = surprise(scores, targets)
        total += float(found[found.isfinite()].sum(dtype=torch.float64))
    return hits / len(part), -total / len(part)


def _square_error(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return scores.square().sum(1) - 2 * scores.gather(1, targets[:, None])[:, 0] + 1


def _cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scores, targets, reduction="none")


def _without_absent(head: Head, counts: torch.Tensor) -> Head:
    """Classes without images, as happen where validation is a group of its own, are never the answer."""
    return Head(head.weight, torch.where(counts.cpu() > 0, head.bias, -torch.inf))


def _checked(train: Examples, validation: Examples, classes: int, device: str | torch.device) -> torch.device:
    for name, part in {"training": train, "validation": validation}.items():
        if not len(part):
            raise ValueError(f"no {name} images: give more labelled images, or another split")
        low, high = int(part.targets.min()), int(part.targets.max())
        if low < 0 or high >= classes:
            raise ValueError(f"{name} targets go from {low} to {high}, classes from 0 to {classes - 1}: leave the others out")
        if not np.isfinite(part.features[:: max(1, len(part) // 1000)]).all():
            raise ValueError(f"{name} features are not all finite: extract them again, in fp32 if the model overflows in bf16")
    return exact_device(device)


# ---------------------------------------------------------------- trained, from any start


def train_heads(
    starts: Sequence[Head],
    train: Examples,
    rates: Sequence[float],
    epochs: int = 30,
    seed: int = 0,
    device: str | torch.device = "cpu",
    *,
    batch_size: int = 256,
) -> list[Head]:
    """The paper's linear probe from several starts [C, D] at once, each at its peak learning rate; starts stay as they are.

    Softmax cross-entropy, AdamW without decay, a cosine over all steps down to a thirtieth of the peak (the paper's 3e-5 →
    1e-6 in 30 epochs of batches of 256). On the same batches one product serves all heads, and each comes out as it would
    alone, but for rounding. device: where they are trained, all features at once; the batches are the same on any.
    """
    device = exact_device(device)
    at_once = max(1, AT_ONCE[device.type] // starts[0].weight.numel())
    if len(starts) > at_once:
        parts = [slice(first, first + at_once) for first in range(0, len(starts), at_once)]
        given = {"epochs": epochs, "seed": seed, "device": device, "batch_size": batch_size}
        return [head for part in parts for head in train_heads(starts[part], train, rates[part], **given)]
    x, y = torch.from_numpy(train.features).to(device), torch.from_numpy(train.targets).long().to(device)
    weights = torch.stack([start.weight for start in starts]).to(device)
    biases = torch.stack([start.bias for start in starts]).to(device)
    optimiser = torch.optim.AdamW(_with_gradients(weights, biases), lr=0.0, weight_decay=0.0, fused=True)
    heads, classes, width = weights.shape
    rows, flat = torch.arange(min(batch_size, len(y)), device=device), weights.view(-1, width)
    # Memory that is asked for anew at every step has to be cleared by the system first: as long as the products take.
    logits, wrong = (torch.empty(len(rows), heads, classes, device=device) for _ in range(2))
    generator = torch.Generator().manual_seed(seed)
    total, step = epochs * math.ceil(len(y) / batch_size), 0
    for _ in range(epochs):
        for batch in torch.randperm(len(y), generator=generator).to(device).split(batch_size):
            cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, total - 1)))
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate / 30 + (rate - rate / 30) * cosine
            # Cross-entropy's gradient by hand: probabilities less the truth, over the images of the batch.
            seen, count = x[batch], len(batch)
            torch.addmm(biases.view(-1), seen, flat.T, out=logits[:count].view(count, -1))
            torch.softmax(logits[:count], dim=2, out=wrong[:count])
            wrong[rows[:count], :, y[batch]] -= 1
            wrong[:count] /= count
            torch.mm(wrong[:count].view(count, -1).T, seen, out=weights.grad.view(-1, width))
            torch.sum(wrong[:count], dim=0, out=biases.grad)
            optimiser.step()
            step += 1
    return [Head(weight.clone(), bias.clone()) for weight, bias in zip(weights.cpu(), biases.cpu(), strict=True)]


def _with_gradients(*stacked: torch.Tensor) -> list[dict]:
    """A group for each of the heads that lie in `stacked`, [H, …] each, whose gradients lie as these do."""
    each = [list(part) for part in stacked]
    for part, views in zip(stacked, each, strict=True):
        part.grad = torch.zeros_like(part)
        for view, gradient in zip(views, part.grad, strict=True):
            view.grad = gradient
    return [{"params": list(of_head)} for of_head in zip(*each, strict=True)]


def fit_heads(
    starts: Sequence[Head], train: Examples, validation: Examples, epochs: int = 30, seed: int = 0,
    device: str | torch.device = "cpu",
) -> list[tuple[float | None, Head]]:  # fmt: skip
    """From each start the learning rate that validates best, and that head; 0 is the start, all there is without images."""
    if not len(train):
        return [(None, start) for start in starts]
    tried = [(rate, start) for start in starts for rate in LEARNING_RATES]
    heads = train_heads([start for _, start in tried], train, [rate for rate, _ in tried], epochs, seed, device)

    def top1(fitted: tuple[float, Head]) -> float:
        return top_k(fitted[1].scores(validation.features), validation.targets)

    rates = len(LEARNING_RATES)
    fitted = [list(zip(LEARNING_RATES, heads[i : i + rates], strict=True)) for i in range(0, len(heads), rates)]
    return [max([(0.0, start), *found], key=top1) for start, found in zip(starts, fitted, strict=True)]


# ---------------------------------------------------------------- nearest images


def nearest(
    reference: np.ndarray, queries: np.ndarray, count: int, device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest reference features of each query, the nearest first: cosines float32 [Q, k], rows int64 [Q, k].

    reference: float32 [N, D]; queries: float32 [Q, D]; k = min(count, N). Of the Q x N cosines 64 MB (a GPU: 2 GB) are in
    memory at a time. A feature vector of zeros has cosine 0 with all.
    """
    device = exact_device(device)
    known, wanted = (F.normalize(torch.from_numpy(features).to(device)) for features in (reference, queries))
    parts = wanted.split(max(1, SIMILARITIES_AT_ONCE[device.type] // len(known)))
    found = [(part @ known.T).topk(min(count, len(known))) for part in parts]
    cosines, rows = (torch.cat(each).cpu().numpy() for each in zip(*found, strict=True))
    return cosines, rows


def neighbour_scores(cosines: np.ndarray, targets: np.ndarray, k: int, classes: int) -> np.ndarray:
    """Logs of the votes of the k nearest of each query, float32 [Q, C]; softmax makes them shares of the vote.

    cosines: float32 [Q, K] and targets: int64 [Q, K], class indices, both the nearest first. A vote weighs exp(cosine / 0.05).
    Classes that only the other K - k have are ranked by their nearest, below all that have votes; the rest score -inf.
    """
    cosine, target = torch.from_numpy(cosines), torch.from_numpy(targets)
    votes = torch.zeros(len(cosine), classes).scatter_add_(1, target[:, :k], (cosine[:, :k] / VOTE_TEMPERATURE).exp())
    without = torch.full((len(cosine), classes), -torch.inf).scatter_reduce_(1, target, (cosine - 2) / VOTE_TEMPERATURE, "amax")
    return torch.where(votes > 0, votes.log(), without).numpy()
