"""Does a published checkpoint reach its published figures here? The reference's weights, end to end, on labelled images.

    python -m catlip_lite.tasks.check_published vit_base.pt --vocabulary datacomp_1_2B_vocab.pkl --images imagenet/val
    python -m catlip_lite.tasks.check_published vit_base_512x512.pt --images imagenet/val

A head of 1000, 365 or 80 classes is a classifier fine-tuned on ImageNet-1k, Places365 or COCO: top-1 and top-5, or the mean
average precision. Any other is the pre-trained model's: how its vocabulary knows the labels, zero-shot, and, with --train, a
linear probe. Beside each figure stands what the reference published for this width, these labels and this image size.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from ..data.labelled import LabelledImages, load_labelled
from ..labels import LabelSet, Vocabulary
from ..labels.borrowing import BORROWING, Borrowed, borrow
from ..labels.mapping import class_positions, map_classes
from ..models import PretrainedModel, load_corenet, transfer_head
from ..models.classifier import Classifier
from ..progress import progress
from ..transfer.linear_probe import Examples, logistic_probe
from .features import Features, extract, split_validation
from .multi_label_scoring import dense_targets, score_multi_label
from .scoring import top_k_hits

FINETUNED = {1000: "imagenet-1k", 365: "places365", 80: "coco-80"}  # rows of the head -> what it was fine-tuned on
PUBLISHED_SIZE = {"coco-80": 512}  # pixels, where 224 was not published
EVALUATED = {"imagenet-1k": 50_000, "places365": 36_500, "coco-80": 5_000}  # images of the validation sets
TOLERANCE = 0.3  # points: other decoders, precisions and resizes move a figure by less

# (figure, labels, image size) -> width -> per cent. From corenet v0.1.0: projects/catlip/README-single-label-object-
# classification.md and README-multi-label-object-classification.md, there the logs of the base models (top-5, micro, weighted);
# the linear probes of the DataComp models from the paper, arXiv 2404.15653, which has no checkpoints for them.
PUBLISHED = {
    ("top-1", "imagenet-1k", 224): {768: 84.2, 1024: 86.8, 1280: 87.1},
    ("top-5", "imagenet-1k", 224): {768: 97.006},
    ("top-1", "imagenet-1k", 512): {768: 86.1, 1024: 88.6, 1280: 88.7},
    ("top-1", "places365", 224): {768: 59.3, 1024: 60.4, 1280: 60.3},
    ("top-1", "places365", 512): {768: 59.4, 1024: 60.7, 1280: 61.1},
    ("macro mAP", "coco-80", 512): {768: 88.06, 1024: 90.75},
    ("micro mAP", "coco-80", 512): {768: 91.18},
    ("weighted mAP", "coco-80", 512): {768: 89.07},
    ("linear probe top-1", "imagenet-1k", 224): {768: 80.1, 1024: 85.2, 1280: 86.1},
}


def check(
    checkpoint: str | Path,
    images: str,
    *,
    vocabulary: str | Path | None = None,
    train: str | None = None,
    label_set: str | None = None,
    corrections: str | Path | None = None,
    borrow_how: str = "own",
    num_captions: int | None = None,
    image_size: int | None = None,
    sample: int | None = None,
    cache: Path | None = None,
    workers: int = 0,
    device: str | None = None,
    precision: str = "auto",
) -> pd.DataFrame:
    """All figures of one checkpoint, a row each: figure, per cent, published, verdict (see `beside_published`).

    images, train: addresses as `load_labelled` takes them. label_set: what the labels are (None: told by the head's rows, or
    by the class names); a classifier's classes in the order of its rows. vocabulary, num_captions, corrections, borrow_how,
    train and cache are the pre-trained model's alone. sample: at most so many images of each address.
    Raises FileNotFoundError or ValueError with what to do, before any image is decoded.
    """
    network, known, image_size = _network(checkpoint, label_set, image_size)
    finetuned = known is not None and len(known) == network.num_classes
    title = f"{network.embed_dim} channels, {len(network.blocks)} blocks, {network.num_classes:,} classes"
    kind = f"fine-tuned on {known.title}" if finetuned else "pre-trained"
    print(f"{checkpoint}: {title}: {kind}; images of {image_size} pixels", flush=True)
    place = {"device": device, "precision": precision}
    if finetuned:
        shown, labels = load_labelled(images).sample(sample), known.title
        figures = classifier_figures(network, known, shown, image_size, workers=workers, **place)
    else:
        words = _vocabulary(vocabulary, network, num_captions)
        shown = load_labelled(images).sample(sample)
        trained = load_labelled(train).sample(sample) if train else None
        mapped = map_classes(shown.present(), known, corrections)
        borrowed, labels = borrow(mapped, words, borrow_how), mapped.title
        print(summarise_borrowed(mapped, borrowed), flush=True)
        model = PretrainedModel(network, words, {"image_size": image_size}, **place)
        figures = pretrained_figures(model, mapped, borrowed, shown, trained, cache, workers)
    return beside_published(figures, labels, network.embed_dim, image_size, len(shown))


def _network(checkpoint: str | Path, label_set: str | None, image_size: int | None) -> tuple[nn.Module, LabelSet | None, int]:
    """The network with its positions at the size that is meant, what its labels are (None: see the class names) and that size.

    The reference interpolates positions along the raster at every size but 224, and trained its weights so.
    """
    size = image_size or (512 if "512" in Path(checkpoint).name else 224)
    network = load_corenet(checkpoint, size, positions="reference")
    title = label_set or FINETUNED.get(network.num_classes)
    known = LabelSet.load(title) if title else None
    if image_size is None and known is not None and size != PUBLISHED_SIZE.get(known.title, size):
        size = PUBLISHED_SIZE[known.title]
        network = load_corenet(checkpoint, size, positions="reference")
    return network, known, size


def _vocabulary(path: str | Path | None, network: nn.Module, num_captions: int | None) -> Vocabulary:
    if path is None:
        raise ValueError(
            f"a head of {network.num_classes:,} classes is a pre-trained model's: pass its --vocabulary, or the --label-set of "
            "as many classes that it was fine-tuned on"
        )
    if Path(path).suffix == ".pkl":
        vocabulary = Vocabulary.load_corenet(path, network.num_classes, num_captions=num_captions)
    else:
        vocabulary = Vocabulary.load(path)
    if len(vocabulary) != network.num_classes:
        raise ValueError(
            f"{path} has {len(vocabulary):,} classes but the checkpoint's head has {network.num_classes:,}: pass the "
            "vocabulary the model was trained with"
        )
    return vocabulary


# --- fine-tuned classifiers ------------------------------------------------------------------------------------------------


def classifier_figures(
    network: nn.Module,
    known: LabelSet,
    images: LabelledImages,
    image_size: int,
    device: str | None = None,
    precision: str = "auto",
    workers: int = 0,
) -> dict[str, float]:
    """Shares of 1: top-1 and top-5, or the means of average precision if the images are multi-label.

    known: the classes of the head's rows, in their order (folders of Places365 and WNIDs of ImageNet, sorted, have it).
    Images that cannot be read are left out. Raises ValueError for classes that `known` lacks.
    """
    positions = class_positions(images.classes, known)
    there = set(images.present())
    lacking = [name for name, at in zip(images.classes, positions, strict=True) if at < 0 and name in there]
    if lacking:
        raise ValueError(
            f"{known.title}, which the classifier knows, has no class {', '.join(lacking[:8])} ({len(lacking)} name(s)): give "
            "images of its classes"
        )
    classifier = Classifier(network, {"image_size": image_size, "classes": list(known.names)}, device, precision)
    starts = range(0, len(images), 2048)
    parts = (images.take(np.arange(start, min(start + 2048, len(images)))) for start in starts)
    scores = [classifier.scores(part, workers=workers) for part in progress(parts, "classifier", len(starts), "x 2,048 images")]
    scores = np.concatenate(scores)
    read = np.isfinite(scores).all(axis=1)
    if not images.multi_label:
        targets = positions[images.indices]
        return {f"top-{k}": share for k, share in top_k_hits(scores[read], targets[read]).items()}
    targets = np.zeros(scores.shape, dtype=bool)
    given = positions >= 0
    targets[:, positions[given]] = dense_targets(images)[:, given]
    found = score_multi_label(scores[read], targets[read], known.names)
    return {f"{name} mAP": share for name, share in found.means().items()}


# --- pre-trained models ----------------------------------------------------------------------------------------------------


def summarise_borrowed(mapped: LabelSet, borrowed: Sequence[Borrowed]) -> str:
    """In one line, how many labels find themselves in the vocabulary, how many borrow and how many are left."""
    kinds = Counter(found.kind for found in borrowed)
    lost = [name for name, found in zip(mapped.names, borrowed, strict=True) if found.kind == "none"]
    told = f" ({', '.join(lost[:8])}{', …' if len(lost) > 8 else ''})" if lost else ""
    return (
        f"{len(mapped):,} labels ({mapped.title}): {kinds['own']} own synsets, {kinds['hyponyms']} borrow from below, "
        f"{kinds['similar']} from near them, {kinds['none']} unmatched{told}"
    )


def pretrained_figures(
    model: PretrainedModel,
    mapped: LabelSet,
    borrowed: Sequence[Borrowed],
    images: LabelledImages,
    train: LabelledImages | None = None,
    cache: Path | None = None,
    workers: int = 0,
) -> dict[str, float]:
    """Shares of 1: top-1 and top-5 of zero-shot with and without the prior and, given training images, of a linear probe.

    mapped: the classes that the images have, in their order. Zero-shot knows the labels that borrow something; images of the
    others are misses.
    """
    test = extract(model, images, cache, workers=workers)
    targets = _targets(test, mapped.names)
    matched = np.array([found.kind != "none" for found in borrowed])
    figures = {}
    for title, bias in (("zero-shot", "prior"), ("zero-shot without prior correction", "copied")):
        scores = transfer_head(model, borrowed, bias=bias).scores(test.features)
        scores[:, ~matched] = -np.inf
        figures |= {f"{title} top-{k}": share for k, share in top_k_hits(scores, targets).items()}
    if train is not None:
        figures |= _probe_figures(model, test, extract(model, train, cache, workers=workers))
    return figures


def _probe_figures(model: PretrainedModel, test: Features, train: Features) -> dict[str, float]:
    """Multinomial logistic regression to convergence; the paper trains 30 epochs of AdamW, which ends near it."""
    classes = sorted(set(train.labels.tolist()))
    everything = Examples(train.features, _targets(train, classes))
    chosen = split_validation(train)
    parts = [Examples(everything.features[part], everything.targets[part]) for part in (~chosen, chosen)]
    fit = logistic_probe(*parts, len(classes), device=model.device)
    hits = top_k_hits(fit.head.scores(test.features), _targets(test, classes))
    return {f"linear probe top-{k}": share for k, share in hits.items()}


def _targets(features: Features, classes: Sequence[str]) -> np.ndarray:
    """Class indices int64 [N]; -1, which is always a miss, for labels that the classes lack."""
    position = {name: i for i, name in enumerate(classes)}
    return np.array([position.get(label, -1) for label in features.labels.tolist()], dtype=np.int64)


# --- the table -------------------------------------------------------------------------------------------------------------


def beside_published(figures: dict[str, float], labels: str, width: int, image_size: int, images: int) -> pd.DataFrame:
    """Figures (shares of 1) in per cent beside the published ones: columns figure, per cent, published, verdict.

    verdict: "as published" within 0.3 points, else the points above or below it; "no verdict", and why, if nothing was
    published or these are not all images of the validation set.
    """
    rows = []
    for figure, share in figures.items():
        published = PUBLISHED.get((figure, labels, image_size), {}).get(width)
        difference = None if published is None else 100 * share - published
        if difference is None:
            verdict = "no verdict: nothing published"
        elif images != EVALUATED[labels]:
            verdict = f"no verdict: {images:,} of {EVALUATED[labels]:,} images"
        elif abs(difference) <= TOLERANCE:
            verdict = "as published"
        else:
            verdict = f"{abs(difference):.2f} points {'above' if difference > 0 else 'below'}"
        rows.append({"figure": figure, "per cent": 100 * share, "published": published, "verdict": verdict})
    return pd.DataFrame(rows).astype({"published": float})


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of one checkpoint; gives 0, or 1 with one line that says what to do."""
    parser = argparse.ArgumentParser(prog="python -m catlip_lite.tasks.check_published", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="the reference's .pt, or its state dict as .safetensors")
    parser.add_argument("--images", required=True, help="labelled images: ImageNet's val, Places365's, COCO's instances_….json")
    parser.add_argument("--vocabulary", type=Path, help="of a pre-trained model: the published .pkl, or a vocabulary.parquet")
    parser.add_argument("--train", help="labelled images for a linear probe of a pre-trained model")
    parser.add_argument("--label-set", help="what the labels are (default: told by the head, or by the class names)")
    parser.add_argument("--corrections", type=Path, help="CSV with columns label,wnids: what class names mean")
    parser.add_argument("--borrow", dest="borrow_how", default="own", choices=BORROWING, help="(default: %(default)s)")
    parser.add_argument("--num-captions", type=int, help="behind the vocabulary's counts, for its prior (default: the largest)")
    parser.add_argument("--image-size", type=int, help="pixels (default: 512 if the file's name has it or for COCO, else 224)")
    parser.add_argument("--sample", type=int, help="at most so many images of each set, for a first look")
    parser.add_argument("--cache", type=Path, help="folder for features, which another run then reads")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode images (default: threads of this one)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: the best there is)")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    started = time.monotonic()
    try:
        table = check(**vars(options))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table.to_string(index=False, float_format="{:.2f}".format, na_rep="-"))
    print(f"{time.monotonic() - started:,.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
