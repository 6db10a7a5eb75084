"""How well pixels and objects are found: intersection over union by torchmetrics, COCO's precision by faster-coco-eval."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial

import numpy as np
import pandas as pd
import torch

from ..data.dense import IGNORED, DetectedImages, SegmentedImages
from ..labels.label_sets import listed
from ..models.detector import DetectionModel
from ..models.segmenter import PROTOCOLS, SegmentationModel
from ..models.vit import refuse_unknown
from ..progress import progress

try:
    from faster_coco_eval import COCO, COCOeval_faster
    from faster_coco_eval.core import mask as mask_api
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("scores of dense tasks need more packages: run `pip install 'catlip-lite[dense]'`") from error

logger = logging.getLogger(__name__)

KINDS = {"bbox": ("box", "segmentation"), "segm": ("mask", "bbox")}  # name, and what of a result does not count
# COCO's twelve figures, in its evaluators' order; the average recalls (AR) are of the best 1, 10 and 100 objects an image.
FIGURES = (
    "AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "AR1", "AR10", "AR100", "AR small", "AR medium", "AR large",
)  # fmt: skip


def segmentation_scores(
    model: SegmentationModel, images: SegmentedImages, protocol: str = "squash"
) -> tuple[dict[str, float], pd.DataFrame]:
    """mIoU and pixel accuracy over all images' pixels at once, in their own sizes; a table of `class`, `IoU` and `accuracy`.

    Pixels without a class do not count, nor do classes that neither truth nor answer shows (NaN in the table). protocol: see
    `SegmentationModel`. Images that cannot be read are left out and told; raises ValueError if none is left.
    """
    settings = {"num_classes": len(images.classes), "ignore_index": IGNORED}
    figures = MetricCollection(
        {
            "mIoU": MulticlassJaccardIndex(average="macro", **settings),
            "IoU": MulticlassJaccardIndex(average="none", zero_division=float("nan"), **settings),
            "pixel accuracy": MulticlassAccuracy(average="micro", **settings),
            "accuracy": MulticlassAccuracy(average="none", **settings),
        }
    )

    def answer(i: int) -> tuple[np.ndarray, np.ndarray]:
        found, truth = model.segment(images.files.read(i), protocol), images.mask(i)
        _refuse_another_size(images.files.name(i), found.shape, truth.shape)
        return found, truth

    refuse_unknown("protocol", protocol, PROTOCOLS)
    _refuse_other_classes(model, images)
    for found, truth in _of_readable(images, answer):
        figures.update(torch.from_numpy(found).flatten(), torch.from_numpy(truth.astype(np.int64)).flatten())
    told = {name: value.numpy() for name, value in figures.compute().items()}
    table = pd.DataFrame({"class": images.classes, "IoU": told["IoU"], "accuracy": told["accuracy"]})
    return {name: float(told[name]) for name in ("mIoU", "pixel accuracy")}, table


def detection_scores(model: DetectionModel, images: DetectedImages) -> tuple[dict[str, float], pd.DataFrame]:
    """COCO's figures of boxes and of masks, "box AP" to "mask AR large", and a table of `class`, `box AP` and `mask AP`.

    The truth is that of `DetectedImages.as_coco`: boxes within their images, no object without a pixel. Images that cannot be
    read count as images in which nothing was found, and are told. Raises ValueError if none can, or for other classes.
    """
    _refuse_other_classes(model, images)
    found = list(_of_readable(images, partial(_answers, model, images)))
    return coco_scores(images.as_coco(), [one for answers in found for one in answers])


def coco_scores(truth: Mapping, found: Sequence[Mapping]) -> tuple[dict[str, float], pd.DataFrame]:
    """`detection_scores` of COCO's annotations, as a dictionary, and of results in COCO's form (image_id, category_id, bbox,
    score, segmentation). A figure that is not defined, as that of large objects where there is none, is NaN."""
    figures, table = {}, pd.DataFrame({"class": [one["name"] for one in truth["categories"]]})
    with redirect_stdout(io.StringIO()):  # it tells each step
        known = COCO(dict(truth))
        for kind, (name, other) in KINDS.items():
            # A result's area, which tells small from large, would be its box's if it had one: masks are judged without.
            given = [{key: value for key, value in one.items() if key != other} for one in found]
            answers = known.loadRes(given) if found else COCO({**truth, "annotations": []})
            judged = COCOeval_faster(known, answers, kind)
            judged.evaluate()
            judged.accumulate()
            judged.summarize()
            stats = np.array(judged.stats[: len(FIGURES)], np.float64)
            figures |= {f"{name} {figure}": value for figure, value in zip(FIGURES, _defined(stats).tolist(), strict=True)}
            precision = _defined(judged.eval["precision"][..., 0, -1])  # [IoU, recall, class], of all sizes and 100 objects
            table[f"{name} AP"] = precision.reshape(-1, precision.shape[-1]).mean(axis=0)
    return figures, table


def _defined(values: np.ndarray) -> np.ndarray:
    """COCO's -1 is what cannot be told."""
    return np.where(values < 0, np.nan, values)


def _answers(model: DetectionModel, images: DetectedImages, i: int) -> list[dict]:
    """What a model finds in an image, in COCO's form."""
    found = model.detect(images.files.read(i), least_score=0.0)
    _refuse_another_size(images.files.name(i), found["masks"].shape[1:], images.sizes[i][::-1])
    corners = found["boxes"]
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    masks = mask_api.encode(np.asfortranarray(found["masks"].transpose(1, 2, 0).astype(np.uint8)))
    columns = zip(found["class_indices"].tolist(), boxes, found["scores"].tolist(), masks, strict=True)
    return [
        {"image_id": i + 1, "category_id": label + 1, "bbox": box, "score": score, "segmentation": mask}
        for label, box, score, mask in columns
    ]


def _of_readable(images: SegmentedImages | DetectedImages, answer: Callable[[int], object]) -> Iterator:
    """The answer to each image that can be read, telling how many are done."""
    failures = []
    for i in progress(range(len(images)), "images scored", unit="images"):
        try:
            yield answer(i)
        except (OSError, ValueError) as error:
            name = images.files.name(i)
            failures.append(str(error) if name in str(error) else f"{name} ({error})")
    if len(failures) == len(images):
        raise ValueError(f"none of {len(images):,} images can be read, the first: {failures[0]}")
    if failures:
        logger.warning("%d of %s images cannot be scored: %s", len(failures), f"{len(images):,}", listed(failures))


def _refuse_other_classes(model: SegmentationModel | DetectionModel, images: SegmentedImages | DetectedImages) -> None:
    if list(model.classes) != list(images.classes):
        raise ValueError(
            f"the model was trained on {len(model.classes)} classes, {listed(model.classes)}; the images have "
            f"{len(images.classes)}, {listed(images.classes)}: give images of the same, in the same order"
        )


def _refuse_another_size(name: str, found: Sequence[int], known: Sequence[int]) -> None:
    if tuple(found) != tuple(known):
        raise ValueError(f"{name} is {found[1]} x {found[0]} pixels, annotated are {known[1]} x {known[0]}")
