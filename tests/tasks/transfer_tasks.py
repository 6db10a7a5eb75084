"""A small downstream task whose features are told apart easily, with the pictures behind them."""

import numpy as np

from catlip_lite.data.image_files import LooseFiles, Names
from catlip_lite.data.labelled_images import labelled_images
from catlip_lite.labels import Vocabulary
from catlip_lite.tasks import transfer_init as task
from catlip_lite.tasks.features import Features

WIDTH = 192
COLOURS = {"apple": (200, 30, 30), "cat": (90, 90, 90), "dog": (120, 80, 40)}


def made_part(folder, make_png, counts, *, group="", seed=0) -> task.Part:
    """So many pictures of each label, in `folder`; their features lie around a centre a label."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(list(counts), list(counts.values()))
    names = []
    folder.mkdir(parents=True, exist_ok=True)
    for i, label in enumerate(labels):
        names.append(f"{i}.png")
        (folder / names[-1]).write_bytes(make_png(COLOURS.get(label, (0, 0, 0))))
    classes = sorted(counts)
    images = labelled_images(
        LooseFiles(str(folder), Names.of(names)),
        classes,
        np.array([classes.index(label) for label in labels]),
        [],
        groups=[group] * len(labels),
    )
    centres = {label: np.random.default_rng(sum(map(ord, label))).normal(size=WIDTH) for label in classes}
    features = np.stack([centres[label] + 0.3 * rng.normal(size=WIDTH) for label in labels]).astype(np.float32)
    rows = np.arange(len(labels))
    return task.Part(folder.name, images, Features(features, images.labels, images.groups, rows))


def made_task(folder, make_png) -> task.Task:
    """Three labels, of which the vocabulary knows two; nine preferred images, six others, fifteen of a test."""
    vocabulary = Vocabulary(["n07739125", "n02084071", "n02120997"], [50, 30, 20], num_captions=100)
    meant, borrowed = task.map_labels(["apple", "cat", "dog"], vocabulary)
    each = dict.fromkeys(("apple", "cat", "dog"), 1)
    first = made_part(folder / "first", make_png, dict.fromkeys(each, 3), group="A")
    second = made_part(folder / "second", make_png, dict.fromkeys(each, 2), group="B", seed=1)
    test = made_part(folder / "test", make_png, dict.fromkeys(each, 5), group="D", seed=2)
    return task.prepare_task(meant, borrowed, [first, second], [test], validation_share=0.4)
