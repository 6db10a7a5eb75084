"""Figures of pixels and objects: known answers, and the same as COCO's own evaluator."""

import contextlib
import io

import numpy as np
import pytest

from catlip_lite import progress
from catlip_lite.data.dense import load_segmentation
from catlip_lite.transfer.dense_metrics import FIGURES, coco_scores, segmentation_scores

pycocotools_coco = pytest.importorskip("pycocotools.coco")
pycocotools_eval = pytest.importorskip("pycocotools.cocoeval")
mask_api = pytest.importorskip("pycocotools.mask")


def triangle(left, top, width, height):
    """Half of a box, so that some are of another size than it: run lengths, on a page of 100 pixels."""
    return mask_api.merge(mask_api.frPyObjects([[left, top, left + width, top + height, left, top + height]], 100, 100))


def random_case(rng, classes=2, side=100):
    """Annotations of one to three images, crowds among them, and what a detector might say of them."""
    images = [{"id": i, "file_name": f"{i}.png", "width": side, "height": side} for i in range(1, int(rng.integers(2, 5)))]
    annotations, found = [], []
    for image in images:
        for _ in range(int(rng.integers(0, 5))):
            box = [*rng.integers(0, 50, 2).tolist(), *rng.integers(2, 50, 2).tolist()]
            facts = {"image_id": image["id"], "category_id": int(rng.integers(1, classes + 1))}
            more = {
                "bbox": box,
                "area": box[2] * box[3] / 2,
                "segmentation": triangle(*box),
                "iscrowd": int(rng.random() < 0.1),
            }
            annotations.append({"id": len(annotations) + 1, **facts, **more})
            for _ in range(int(rng.integers(0, 3))):
                near = (np.array(box) + rng.integers(-4, 5, 4)).clip(1, side).tolist()
                label = facts["category_id"] if rng.random() < 0.8 else int(rng.integers(1, classes + 1))
                found.append({"image_id": image["id"], "category_id": label, "bbox": near, "score": float(rng.random())})
    found = [one | {"segmentation": triangle(*one["bbox"])} for one in found]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, classes + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, found


def by_pycocotools(truth, found):
    """The twelve figures of boxes, then of masks."""
    boxes, masks = (
        [{key: value for key, value in one.items() if key != other} for one in found] for other in ("segmentation", "bbox")
    )
    known, figures = pycocotools_coco.COCO(), []
    known.dataset = {key: [dict(one) for one in part] for key, part in truth.items()}
    known.createIndex()
    for kind, given in (("bbox", boxes), ("segm", masks)):
        judged = pycocotools_eval.COCOeval(known, known.loadRes(given), kind)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
        figures += judged.stats.tolist()
    return np.where(np.array(figures) < 0, np.nan, figures)


def test_on_random_cases_the_figures_are_pycocotools():
    rng, cases = np.random.default_rng(0), 0
    while cases < 30:
        truth, found = random_case(rng)
        if not found or not truth["annotations"]:  # pycocotools takes no empty list
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            expected = by_pycocotools(truth, found)
        figures, _ = coco_scores(truth, found)
        ours = [figures[f"{kind} {name}"] for kind in ("box", "mask") for name in FIGURES]
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        cases += 1


def test_a_detector_that_finds_nothing_has_no_precision_and_one_that_finds_all_has_one():
    rng = np.random.default_rng(1)
    truth, _ = random_case(rng)
    truth["annotations"] = [one | {"iscrowd": 0} for one in truth["annotations"]]
    none, _ = coco_scores(truth, [])
    assert none["box AP"] == none["mask AP50"] == 0.0
    every = [
        {key: one[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
        for one in truth["annotations"]
    ]
    figures, table = coco_scores(truth, every)
    assert figures["box AP"] == figures["mask AP"] == pytest.approx(1.0)
    assert table["class"].tolist() == ["class 1", "class 2"]


class Answering:
    """A segmenter that knows the answers."""

    classes = ("sky", "tree", "fish")

    def __init__(self, answers):
        self.answers = iter(answers)

    def segment(self, image, protocol):
        return next(self.answers)


def test_intersection_over_union_is_of_all_pixels_together_without_those_nobody_labelled(tmp_path, caplog, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", -1.0)  # a line for each image
    from PIL import Image

    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    truths = [np.array([[1, 1], [2, 0]], np.uint8), np.array([[2, 2, 2, 1]], np.uint8)]
    for i, truth in enumerate(truths):
        Image.fromarray(np.zeros((*truth.shape, 3), np.uint8)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(truth).save(tmp_path / "annotations" / f"{i}.png")
    (tmp_path / "classes.txt").write_text("sky\ntree\nfish\n")
    images = load_segmentation(tmp_path / "images")
    answers = [np.array([[0, 1], [1, 2]]), np.array([[1, 1, 0, 0]])]
    figures, table = segmentation_scores(Answering(answers), images)
    # sky: found 2 of its 3 pixels, and 1 of the tree's; tree: 3 of its 4, and 1 of the sky's; the fish is nowhere
    assert table["IoU"].tolist()[:2] == pytest.approx([2 / 4, 3 / 5]) and np.isnan(table["IoU"][2])
    assert table["accuracy"].tolist()[:2] == pytest.approx([2 / 3, 3 / 4])
    assert figures == pytest.approx({"mIoU": (2 / 4 + 3 / 5) / 2, "pixel accuracy": 5 / 7})
    assert "images scored: 2 of 2 images" in capsys.readouterr().out
    shorter = [np.array([[0, 1, 2], [1, 2, 0]]), answers[1]]  # another size than the first mask: told, and left out
    figures, _ = segmentation_scores(Answering(shorter), images)
    assert "0.png is 3 x 2 pixels, annotated are 2 x 2" in caplog.text and figures["pixel accuracy"] == 3 / 4
    with pytest.raises(ValueError, match="protocol='crop' is unknown: choose one of squash, whole, slide"):
        segmentation_scores(Answering(answers), images, "crop")
    (tmp_path / "classes.txt").write_text("tree\nsky\nfish\n")
    with pytest.raises(ValueError, match="the model was trained on 3 classes, sky, tree, fish; the images have 3, tree, sky"):
        segmentation_scores(Answering(answers), load_segmentation(tmp_path / "images"))
