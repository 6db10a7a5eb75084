"""Images of dense tasks as training batches: every image once an epoch, with its mask or objects, whoever decodes it."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from files import encode, write
from squares import HEIGHT, WIDTH

from catlip_lite.data.dense import IGNORED, DenseCorpus, DetectionViews, SegmentationViews, load_objects, load_segmentation
from catlip_lite.data.images import AUGMENTATIONS, Augmentation
from catlip_lite.data.loader import BatchSpec, joined

pytestmark = pytest.mark.usefixtures("own_cache")
COUNT, SIZE = 12, 32
VIEWS = {"segmentation": SegmentationViews(), "squash": DetectionViews(), "jitter": DetectionViews("jitter", scale=(0.5, 1.5))}


def picture(i) -> np.ndarray:
    """No two alike."""
    return np.random.default_rng(i).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def images_of(tmp_path, scene_parsing, instances):
    """A function that gives twelve images, segmented or with i % 3 objects each."""
    masks = {f"{i:02d}": (picture(i)[..., 0] % 4).astype(np.uint8) for i in range(COUNT)}
    root = scene_parsing(masks)
    objects = [
        (i, [3 * n, 2, 20, 30], [[3 * n, 2, 3 * n + 20, 2, 3 * n + 20, 32, 3 * n, 32]], {"category_id": 10 * (1 + n)})
        for i in range(COUNT)
        for n in range(i % 3)
    ]
    path = instances(objects, images=COUNT)
    for i in range(COUNT):
        write(root / "images" / "training" / f"{i:02d}.png", encode(picture(i)))
        write(tmp_path / "val2017" / f"{i:012d}.png", encode(picture(i)))
    return lambda kind: load_segmentation(f"{root}#split=training") if kind == "segmentation" else load_objects(path)


def corpus_of(images_of, kind, **how) -> DenseCorpus:
    return DenseCorpus(images_of(kind), SIZE, VIEWS[kind], **{"workers": 0, **how})


def specs(micro=4, steps=3, size=4) -> list[BatchSpec]:
    return [BatchSpec(s * size, size, m, m + micro, SIZE) for s in range(steps) for m in range(0, size, micro)]


def assert_same(batches, others):
    for one, other in zip(batches, others, strict=True):
        assert (one.names, one.skipped) == (other.names, other.skipped)
        for name in ("images", "indices", "rows", "weights"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert len(one.dense) == len(other.dense) > 0
        assert all(map(torch.equal, one.dense, other.dense))


def test_an_epoch_of_segmented_images_has_each_once_with_its_mask(images_of):
    corpus = corpus_of(images_of, "segmentation")
    batches = list(corpus.batches(specs()))
    assert sorted(name for batch in batches for name in batch.names) == [corpus.images.files.name(i) for i in range(COUNT)]
    for batch in batches:
        assert (batch.images.shape, batch.masks.shape) == ((4, 3, SIZE, SIZE), (4, SIZE, SIZE))
        assert batch.images.dtype == batch.masks.dtype == torch.uint8
        assert (len(batch.indices), len(batch.rows), batch.boxes) == (0, 0, None)
        assert batch.dense == (batch.masks,)
        assert set(batch.masks.unique().tolist()) <= {0, 1, 2, IGNORED}


def test_objects_of_a_batch_are_end_to_end_with_the_rows_of_their_images(images_of):
    corpus = corpus_of(images_of, "squash")
    for batch in corpus.batches(specs()):
        expected = [int(name[-6:-4]) % 3 for name in batch.names]
        assert torch.bincount(batch.rows, minlength=4).tolist() == expected
        total = sum(expected)
        assert (batch.indices.shape, batch.boxes.shape, batch.masks.shape) == ((total,), (total, 4), (total, SIZE, SIZE))
        assert batch.indices.tolist() == [n for objects in expected for n in range(objects)]
        assert batch.dense == (batch.boxes, batch.masks, batch.weights)
        assert batch.weights.tolist() == [1] * 4  # of images without objects, too


@pytest.mark.parametrize("kind", ["segmentation", "jitter"])
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_batches(images_of, kind, workers):
    alone, helped = (corpus_of(images_of, kind, workers=n).batches(specs(size=6, micro=6)) for n in (0, workers))
    assert_same(list(alone), list(helped))


@pytest.mark.parametrize("kind", ["segmentation", "jitter"])
def test_a_view_does_not_depend_on_its_neighbours(images_of, kind):
    corpus = corpus_of(images_of, kind)
    together = list(corpus.batches(specs(micro=4)))
    one_by_one = list(corpus.batches(specs(micro=1)))
    assert_same(together, [joined(one_by_one[at : at + 4]) for at in range(0, COUNT, 4)])


@pytest.mark.parametrize("kind", ["segmentation", "jitter"])
def test_an_augmentation_changes_the_colours_and_nothing_else(images_of, kind):
    plain = list(corpus_of(images_of, kind).batches(specs()))
    coloured, again = (list(corpus_of(images_of, kind, augmentation=AUGMENTATIONS["drawings"]).batches(specs())) for _ in "ab")
    assert_same(coloured, again)
    for one, other in zip(plain, coloured, strict=True):
        assert all(map(torch.equal, one.dense, other.dense))
        assert all((a != b).any() for a, b in zip(one.images, other.images, strict=True))
    grey = next(iter(corpus_of(images_of, kind, augmentation=Augmentation(colour=1e-6)).batches(specs()))).images
    assert (grey.int() - plain[0].images.int()).abs().max() <= 1


@pytest.mark.parametrize("kind", ["segmentation", "jitter"])
def test_another_epoch_or_seed_draws_other_views(images_of, kind):
    def by_name(corpus, start):
        (batch,) = corpus.batches([BatchSpec(start, COUNT, 0, COUNT, SIZE)])
        return dict(zip(batch.names, batch.images, strict=True))

    first, second, other = (
        by_name(corpus_of(images_of, kind, seed=seed), start) for seed, start in ((0, 0), (0, COUNT), (1, 0))
    )
    assert first.keys() == second.keys() == other.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_torchs_generator_is_left_as_it_was(images_of):
    before = torch.random.get_rng_state()
    list(corpus_of(images_of, "jitter").batches(specs()))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["segmentation", "jitter"])
def test_a_batch_survives_pickling_and_a_change_of_device(images_of, kind):
    (batch,) = corpus_of(images_of, kind).batches(specs(steps=1))
    assert_same([batch], [pickle.loads(pickle.dumps(batch))])
    assert_same([batch], [batch.to(torch.device("cpu"))])
    on_meta = batch.to(torch.device("meta"))
    assert all(part.is_meta for part in on_meta.dense)
    assert [part.shape for part in on_meta.dense] == [part.shape for part in batch.dense]


def test_views_come_at_the_size_asked_for(images_of):
    corpus = corpus_of(images_of, "segmentation")
    (batch,) = corpus.batches([BatchSpec(0, 2, 0, 2, 48)])
    assert (batch.images.shape[-1], batch.masks.shape[-1]) == (48, 48)
    assert corpus.views_of(BatchSpec(0, 2, 0, 2, 48)).is_floating_point()


@pytest.mark.parametrize("workers", [0, 2])
def test_images_and_masks_that_cannot_be_used_are_rows_of_weight_0_with_their_reasons(images_of, workers):
    good = corpus_of(images_of, "segmentation").images
    write_to = {i: (good.files.path(i), good.masks.path(i)) for i in range(COUNT)}
    for i, content in ((0, b"no image"), (1, encode(picture(1)[:, :50])), (2, encode(picture(2)[..., 0] // 20 + 4))):
        with open(write_to[i][0 if i < 2 else 1], "wb") as file:
            file.write(content)
    corpus = DenseCorpus(good, SIZE, VIEWS["segmentation"], workers=workers)
    (batch,) = corpus.batches([BatchSpec(0, COUNT, 0, COUNT, SIZE)])
    reasons = {name[-6:-4]: reason for name, reason in batch.skipped}
    assert set(reasons) == {"00", "01", "02"}
    assert "unreadable image" in reasons["00"]
    assert "annotations/training/01.png is 60 x 40 pixels, its image 50 x 40" in reasons["01"]
    assert "annotations/training/02.png has class number 16, but 3 classes are listed" in reasons["02"]
    bad = batch.weights == 0
    assert [name[-6:-4] for name, is_bad in zip(batch.names, bad, strict=True) if is_bad] == list(reasons)
    assert not batch.images[bad].any() and (batch.masks[bad] == IGNORED).all()


def test_an_unreadable_image_with_objects_has_none(images_of):
    images = images_of("squash")
    with open(images.files.path(2), "wb") as file:
        file.write(b"no image")
    (batch,) = DenseCorpus(images, SIZE, VIEWS["squash"], workers=0).batches([BatchSpec(0, COUNT, 0, COUNT, SIZE)])
    (bad,) = np.flatnonzero(batch.weights == 0)
    assert batch.names[bad].endswith("02.png") and bad not in batch.rows.tolist()
    assert not batch.images[bad].any()


def test_many_unusable_images_in_a_row_are_refused(images_of):
    images = images_of("segmentation")
    none = replace(images, masks=images.files)  # RGB
    batches = DenseCorpus(none, SIZE, VIEWS["segmentation"], workers=0).batches(
        BatchSpec(4 * i, 4, 0, 4, SIZE) for i in range(20)
    )
    assert not next(batches).weights.any()  # a few may be damaged
    with pytest.raises(ValueError, match="none of the 4 samples of a batch can be used .*is RGB, where a mask has one channel"):
        list(batches)


def test_other_images_are_another_identity(images_of):
    images = images_of("squash")
    whole, half = (DenseCorpus(part, SIZE, VIEWS["squash"]).identity() for part in (images, images.take([0, 1])))
    assert whole["corpus"] != half["corpus"]
    assert whole["rule"] == half["rule"]


def test_no_images_and_views_of_the_other_kind_are_refused(images_of):
    images = images_of("squash")
    with pytest.raises(ValueError, match="no image to train on"):
        DenseCorpus(images.take([]), SIZE, VIEWS["squash"])
    with pytest.raises(ValueError, match="SegmentationViews are not for DetectedImages"):
        DenseCorpus(images, SIZE, VIEWS["segmentation"])
