"""Linear classifiers on frozen features [N, D], solved and not trained: ridge regression in closed form, logistic by L-BFGS.

Both choose their L2 penalty on validation images and are then fitted to all of them; both see features standardised and turned
into the eigenvectors of their covariance, where the closed form is a division and L-BFGS knows the curvature it starts with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from ..models.heads import Head

RIDGE_PENALTIES = tuple(10.0**p for p in range(2, -6, -1))
LOGISTIC_PENALTIES = tuple(10.0 ** (p / 2) for p in range(4, -9, -1))  # each over C, as the curvature of the loss is
LEAST_ON_PATH = 20_000  # images
CHUNK_ELEMENTS = {"cpu": 4_000_000, "cuda": 128_000_000}  # of logits that are in memory at a time
HISTORY = 10  # pairs of steps and gradient changes that L-BFGS keeps, each as large as the classifier


@dataclass(frozen=True)
class Examples:
    """What a classifier learns from. features: float32 [N, D], may be memory-mapped; targets: int64 [N], classes 0..C-1."""

    features: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass
class Fit:
    """A solved probe. head: fitted to training and validation images; validated: to training images alone, for temperatures.

    penalty: lambda in `mean loss + lambda / 2 |W|^2` (logistic: over the number of classes), W the weights of standardised
    features; top1: what each penalty reached on validation; iterations: looks at all images, forwards and backwards, of the
    path and of the final fit.
    """

    head: Head
    validated: Head
    penalty: float
    top1: dict[float, float] = field(default_factory=dict)
    iterations: tuple[int, int] = (0, 0)
    seconds: float = 0.0


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

    def coordinates(self, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
        """The reverse of `head`: weight [R, C] and bias [C] of coordinates."""
        plain, bias = head.weight.T.to(self.mean.device), head.bias.to(self.mean.device)
        return self.directions.T @ (plain * self.std[:, None]), bias + self.mean @ plain


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


# --- ridge regression ---------------------------------------------------------------------------------------------------------


def ridge_probe(
    train: Examples,
    validation: Examples,
    classes: int,
    penalties: Sequence[float] = RIDGE_PENALTIES,
    device: str | torch.device | None = None,
) -> Fit:
    """Least squares on centred one-hot targets, all penalties at once: one eigendecomposition of the D x D covariance.

    Its scores are no logits: they sum to 1 over the classes, whatever the image. Raises ValueError for parts that are empty or
    hold targets outside 0..classes-1.
    """
    device, started = _checked(train, validation, classes, device), time.perf_counter()
    basis = basis_of([train], device)
    sums, counts = _class_sums([train], basis, classes)
    found = {}
    for penalty in penalties:
        head = basis.head(*_ridge_weights(basis, sums, counts, penalty))
        found[penalty] = _validate(head, validation, device, _square_error)
    best = max(found, key=found.get)
    validated = _without_absent(basis.head(*_ridge_weights(basis, sums, counts, best)), counts)
    basis = basis_of([train, validation], device)
    head = basis.head(*_ridge_weights(basis, *_class_sums([train, validation], basis, classes), best))
    return Fit(head, validated, best, {p: top1 for p, (top1, _) in found.items()}, (1, 1), time.perf_counter() - started)


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


# --- logistic regression ------------------------------------------------------------------------------------------------------


def logistic_probe(
    train: Examples,
    validation: Examples,
    classes: int,
    penalties: Sequence[float] = LOGISTIC_PENALTIES,
    device: str | torch.device | None = None,
    *,
    tolerance: float = 1e-3,
    path_tolerance: float = 1e-2,
    most_on_path: int | None = None,
) -> Fit:
    """Multinomial logistic regression: from the strongest penalty to the weakest, each fit starting where the last ended.

    The path is walked on `most_on_path` training images, drawn with a fixed seed (None: a quarter of them, 20,000 at least;
    a penalty of n images is n / N of it for N, as scikit-learn's C has it), and left when two penalties in a row validate
    worse than the best. penalties: in units of 1 / classes. tolerance: a fit ends when its gradient is so small a share of
    that at zero weights. Raises ValueError as `ridge_probe` does.
    """
    device, started = _checked(train, validation, classes, device), time.perf_counter()
    fewer = _some(train, most_on_path or max(LEAST_ON_PATH, len(train) // 4))
    problem = _problem([fewer], classes, device)
    weights, spent, found, heads = problem.start(), 0, {}, {}
    for penalty in sorted(penalties, reverse=True):
        weights, used = minimise(problem, weights, penalty / classes, path_tolerance)
        spent += used
        heads[penalty] = _without_absent(problem.head(weights), problem.counts)
        found[penalty] = _validate(heads[penalty], validation, device, _cross_entropy)
        leader = max(found, key=found.get)
        heads = {p: head for p, head in heads.items() if p in (leader, penalty)}
        if len(found) > 2 and all(top1 < found[leader][0] for top1, _ in list(found.values())[-2:]):
            break
    validated = heads[leader]
    everything = _problem([train, validation], classes, device)
    best = leader * len(fewer) / (len(train) + len(validation))
    start = everything.theta(Head(validated.weight, torch.where(validated.bias.isinf(), 0.0, validated.bias)))
    weights, used = minimise(everything, start, best / classes, tolerance)
    top1 = {penalty: top1 for penalty, (top1, _) in found.items()}
    return Fit(everything.head(weights), validated, leader, top1, (spent, used), time.perf_counter() - started)


@dataclass(frozen=True)
class Problem:
    """Softmax cross-entropy over coordinates: parts of float32 [n, R] with targets int64 [n]; counts: images a class.

    A point is theta, float32 [R + 1, C]: the weights of the coordinates and, as last row, the biases.
    """

    parts: list[tuple[torch.Tensor, torch.Tensor]]
    basis: Basis
    counts: torch.Tensor

    @property
    def images(self) -> int:
        return int(self.counts.sum())

    def start(self) -> torch.Tensor:
        """No weights, and each class as probable as it is frequent."""
        theta = torch.zeros((len(self.basis.values) + 1, len(self.counts)), device=self.basis.mean.device)
        theta[-1] = ((self.counts + 0.5) / (self.images + 0.5 * len(self.counts))).log()
        return theta

    def theta(self, head: Head) -> torch.Tensor:
        """Where a classifier of features as they are stands."""
        weight, bias = self.basis.coordinates(head)
        return torch.cat([weight, bias[None]])

    def head(self, theta: torch.Tensor) -> Head:
        """The classifier of features as they are."""
        return self.basis.head(theta[:-1], theta[-1])

    def loss(self, theta: torch.Tensor, penalty: float) -> tuple[float, torch.Tensor]:
        """Mean cross-entropy in nats with the penalty on all but the biases, and its gradient float32 [R + 1, C]."""
        gradient = torch.zeros_like(theta)
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
        gradient /= self.images
        gradient[:-1].add_(theta[:-1], alpha=penalty)
        return float(total / self.images + 0.5 * penalty * theta[:-1].square().sum(dtype=torch.float64)), gradient

    def curvature(self, penalty: float) -> torch.Tensor:
        """What the Hessian is at zero weights and equal classes, float32 [R + 1, 1]: (variance / C + penalty), its diagonal."""
        variances = torch.cat([self.basis.values, torch.ones_like(self.basis.values[:1])])
        curvature = variances / len(self.counts) + penalty
        curvature[-1] -= penalty
        return curvature[:, None].clamp_min_(1e-9)


def minimise(
    problem: Problem, theta: torch.Tensor, penalty: float, tolerance: float, most: int = 500
) -> tuple[torch.Tensor, int]:
    """L-BFGS from `theta`, in the metric of `curvature`: the least point, and how many times it looked at all images.

    From zero weights its first step is ridge regression's solution. It ends when the gradient, in that metric, is `tolerance`
    of that at zero weights, after `most` looks, or where float32 tells no descent any more.
    """
    inverse = 1 / problem.curvature(penalty)
    goal = tolerance * _norm(_gradient_at_zero(problem), inverse)
    value, gradient = problem.loss(theta, penalty)
    pairs, looks = [], 1
    while _norm(gradient, inverse) > goal and looks < most:
        direction = _two_loops(gradient, pairs, inverse).neg_()
        slope, step = float((gradient * direction).sum()), 1.0
        while True:
            there = theta + step * direction
            value_there, gradient_there = problem.loss(there, penalty)
            looks += 1
            rise = value_there - value
            if rise <= 1e-4 * step * slope or step < 1e-6 or looks >= most:
                break
            step = max(0.1 * step, min(0.5 * step, -0.5 * slope * step**2 / (rise - step * slope)))
        if rise > 0:
            break
        change, bend = step * direction, gradient_there - gradient
        theta, value, gradient = there, value_there, gradient_there
        if float((change * bend).sum()) > 0:
            pairs = [*pairs[1 - HISTORY :], (change, bend)]
    return theta, looks


def _two_loops(gradient: torch.Tensor, pairs: list, inverse: torch.Tensor) -> torch.Tensor:
    """The gradient times L-BFGS's guess of the inverse Hessian (Nocedal and Wright, algorithm 7.4)."""
    result, alphas = gradient.clone(), []
    for change, bend in reversed(pairs):
        alpha = (change * result).sum() / (change * bend).sum()
        result.sub_(alpha * bend)
        alphas.append(alpha)
    scale = 1.0
    if pairs:
        change, bend = pairs[-1]
        scale = (change * bend).sum() / (bend.square() * inverse).sum()
    result.mul_(scale * inverse)
    for (change, bend), alpha in zip(pairs, reversed(alphas), strict=True):
        result.add_((alpha - (bend * result).sum() / (change * bend).sum()) * change)
    return result


def _gradient_at_zero(problem: Problem) -> torch.Tensor:
    """Of equal classes: no look at the images is needed beyond their class sums."""
    theta = torch.zeros((len(problem.basis.values) + 1, len(problem.counts)), device=problem.basis.mean.device)
    for coordinates, targets in problem.parts:
        theta[:-1].T.index_add_(0, targets, coordinates)  # coordinates have mean zero, so equal classes add nothing
    theta[-1] = problem.counts - problem.images / len(problem.counts)
    return theta.neg_().div_(problem.images)


def _norm(gradient: torch.Tensor, inverse: torch.Tensor) -> float:
    return float((gradient.square() * inverse).sum().sqrt())


# --- what both share ----------------------------------------------------------------------------------------------------------


def _problem(parts: Sequence[Examples], classes: int, device: torch.device) -> Problem:
    basis = basis_of(parts, device)
    turned = []
    for part in parts:
        pieces = [(basis.turn(features), targets) for features, targets in _chunks([part], part.features.shape[1], device)]
        turned.append((torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])))
    counts = sum(torch.bincount(targets, minlength=classes) for _, targets in turned)
    return Problem(turned, basis, counts.double())


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


def _checked(train: Examples, validation: Examples, classes: int, device: str | torch.device | None) -> torch.device:
    for name, part in {"training": train, "validation": validation}.items():
        if not len(part):
            raise ValueError(f"no {name} images: give more labelled images, or another split")
        low, high = int(part.targets.min()), int(part.targets.max())
        if low < 0 or high >= classes:
            raise ValueError(f"{name} targets go from {low} to {high}, classes from 0 to {classes - 1}: leave the others out")
        if not np.isfinite(part.features[:: max(1, len(part) // 1000)]).all():
            raise ValueError(f"{name} features are not all finite: extract them again, in fp32 if the model overflows in bf16")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
