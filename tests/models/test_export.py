"""Exported models give the original's logits, with plain timm or plain PyTorch and without this package."""

import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from catlip_lite.data.images import Evaluation
from catlip_lite.labels import Vocabulary
from catlip_lite.models import create_vit, export_program, export_timm, load, save_pretrained
from catlip_lite.models.export import timm_config
from catlip_lite.models.vit import VitShape, build_vit
from catlip_lite.training.loop import Learner
from catlip_lite.training.objectives import create_objective
from catlip_lite.training.recipes import recipe_for

ALONE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import torch
images, expected = torch.load({pair!r})
network = {load}
with torch.no_grad():
    found = network.eval()(images) if {module} else network(images)
assert not {absent!r} & {{name.split(".")[0] for name in sys.modules}}
torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
"""


def write_pretrained(folder, vocabulary, name, size, **options):
    """A pre-trained model of random weights and statistics."""
    torch.manual_seed(0)
    network = create_vit(name, num_classes=len(vocabulary), image_size=size, **options)
    for tensor, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "running" in tensor else value + 0.02 * torch.randn_like(value))
    save_pretrained(folder, network.state_dict(), vocabulary, model=name, image_size=size, **options)
    return load(folder, device="cpu")


@pytest.fixture
def pretrained(tmp_path, vocabulary):
    """Makes one: `pretrained(name, size, stem=..., pooling=...)`."""
    return lambda *shape, vocabulary=vocabulary, **options: write_pretrained(
        tmp_path / "pretrain", vocabulary, *shape, **options
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory, vocabulary):
    """Makes one, and its program, once: `exported(name, size, stem=..., pooling=...)`."""

    @cache
    def make(*shape, **options):
        folder = tmp_path_factory.mktemp("exported")
        model = write_pretrained(folder / "pretrain", vocabulary, *shape, **options)
        return model, export_program(model, folder / "model.pt2")

    return make


def some_images(size, count=3):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits_of(model, images):
    return model.network(images)


def run_alone(tmp_path, model, expression, absent, module):
    """The export's logits in a process where the packages `absent` cannot be imported; fails if they differ."""
    images = some_images(model.image_size)
    torch.save((images, logits_of(model, images)), tmp_path / "pair.pt")
    code = ALONE.format(absent=absent, pair=str(tmp_path / "pair.pt"), load=expression, module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- timm


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["token", "avg"])
@pytest.mark.parametrize(("name", "size"), [("vit_nano8", 32), ("vit_ti16", 224)])
def test_timm_gives_the_logits_of_plain_patches(pretrained, tmp_path, name, size, pooling):
    model = pretrained(name, size, stem="patches", pooling=pooling)
    network = timm.create_model(f"local-dir:{export_timm(model, tmp_path / 'timm')}", pretrained=True).eval()
    images = some_images(size)
    torch.testing.assert_close(network(images), logits_of(model, images), rtol=0, atol=1e-5)


@torch.no_grad()
def test_timm_gives_the_logits_at_other_sizes(pretrained, tmp_path):
    model = pretrained("vit_nano8", 32, stem="patches")
    network = timm.create_model(f"local-dir:{export_timm(model, tmp_path / 'timm')}", pretrained=True).eval()
    images = some_images(48)
    torch.testing.assert_close(network(images), logits_of(model, images), rtol=0, atol=1e-5)


def test_timm_alone_is_enough(pretrained, tmp_path):
    model = pretrained("vit_nano8", 32, stem="patches")
    folder = export_timm(model, tmp_path / "timm")
    expression = f'__import__("timm").create_model("local-dir:{folder}", pretrained=True)'
    run_alone(tmp_path, model, expression, absent={"catlip_lite"}, module=True)


@pytest.mark.parametrize("name", ["vit_s16", "vit_b16", "vit_l16", "vit_h16"])
def test_timm_builds_the_papers_models_with_all_tensors_named_and_shaped_alike(vocabulary, name):
    with torch.device("meta"):
        ours = create_vit(name, num_classes=4, stem="patches")
        config = timm_config(ours, vocabulary, 224)
        theirs = timm.create_model(config["architecture"], num_classes=4, **config["model_args"])
    assert {n: v.shape for n, v in theirs.state_dict().items()} == {n: v.shape for n, v in ours.state_dict().items()}
    assert theirs.blocks[0].attn.num_heads == ours.blocks[0].attn.num_heads


def test_timm_knows_the_classes_and_the_transform(pretrained, tmp_path, vocabulary):
    folder = export_timm(pretrained("vit_nano8", 32, stem="patches"), tmp_path / "timm")
    config = timm.create_model(f"local-dir:{folder}", pretrained=True).pretrained_cfg
    assert list(config["label_names"]) == vocabulary.wnids
    assert [config["label_descriptions"][wnid] for wnid in vocabulary.wnids] == vocabulary.names
    assert (tuple(config["input_size"]), tuple(config["mean"]), tuple(config["std"])) == ((3, 32, 32), (0,) * 3, (1,) * 3)


@pytest.mark.parametrize("size", [32, 48, 224])
def test_timms_transform_gives_the_evaluation_view_of_a_square_picture(pretrained, tmp_path, size):
    folder = export_timm(pretrained("vit_nano8", size, stem="patches"), tmp_path / "timm")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    torch.testing.assert_close(transform(image), Evaluation(size).view(image).float() / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "stem"), [("vit_nano8", "overlapping"), ("vit_ti16", "reference")])
def test_stems_without_an_equal_in_timm_are_refused_with_the_way_out(pretrained, tmp_path, name, stem):
    with pytest.raises(ValueError, match=f"stem='{stem}' has no equal in timm.*: use export_program"):
        export_timm(pretrained(name, 32), tmp_path / "timm")
    assert not (tmp_path / "timm").exists()


@torch.no_grad()
def test_timms_nearest_stem_sees_the_references_images_moved_by_one_pixel():
    torch.manual_seed(0)
    ours = build_vit(VitShape(768, 1, 12), num_classes=4, image_size=224).eval()
    theirs = timm.create_model("vit_base_mci_224", num_classes=4, depth=1).eval()
    renamed = {"conv1": "backbone.0.conv", "bn1": "backbone.0.bn", "conv2": "backbone.1.conv", "bn2": "backbone.1.bn"}
    renamed["conv3"] = "backbone.2.conv"
    state = {}
    for name, value in ours.state_dict().items():
        for own, other in renamed.items():
            name = name.replace(f"patch_embed.{own}.", f"patch_embed.{other}.")
        state[name] = value
    theirs.load_state_dict(state)
    images = some_images(224, count=1)
    moved = torch.nn.functional.pad(images, (1, -1, 1, -1))
    torch.testing.assert_close(theirs(moved), ours(images), rtol=0, atol=1e-6)
    assert not torch.allclose(theirs(images), ours(images), atol=1e-6)


# ---------------------------------------------------------------- one file


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("vit_nano8", 32, {}),
        ("vit_ti16", 64, {"pooling": "avg"}),
        ("vit_nano8", 32, {"stem": "patches", "pooling": "token"}),
    ],
    ids=str,
)
def test_a_program_gives_the_logits_of_any_batch(exported, name, size, options):
    model, path = exported(name, size, **options)
    program = torch.export.load(path).module()
    for count in (1, 2, 5):
        images = some_images(size, count)
        torch.testing.assert_close(program(images), logits_of(model, images), rtol=0, atol=1e-5)


def test_a_program_needs_neither_this_package_nor_timm(exported, tmp_path):
    model, path = exported("vit_nano8", 32)
    expression = f'torch.export.load("{path}").module()'
    run_alone(tmp_path, model, expression, absent={"catlip_lite", "timm"}, module=False)


def test_a_program_carries_its_classes_and_its_transform(exported, vocabulary):
    _, path = exported("vit_nano8", 32)
    extra = {"classes.json": "", "transform.json": ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra["classes.json"])[0] == [vocabulary.wnids[0], vocabulary.names[0]]
    assert json.loads(extra["transform.json"])["input_size"] == [3, 32, 32]


def test_a_program_refuses_another_size(exported):
    program = torch.export.load(exported("vit_nano8", 32)[1]).module()
    with pytest.raises(AssertionError, match="32"):
        program(some_images(48))


def test_a_program_is_named_pt2(tmp_path):
    with pytest.raises(ValueError, match="model.pt must end in .pt2"):
        export_program(tmp_path, tmp_path / "model.pt")


# ---------------------------------------------------------------- both


def test_a_folder_is_taken_as_well_as_a_model(pretrained, tmp_path):
    pretrained("vit_nano8", 32, stem="patches")
    assert (export_timm(tmp_path / "pretrain", tmp_path / "timm") / "config.json").is_file()
    assert export_program(tmp_path / "pretrain", tmp_path / "model.pt2").is_file()


def save_trained_as(objective, folder, vocabulary):
    pytest.importorskip("open_clip")
    recipe = recipe_for("vit_nano8", image_size=16, objective=objective, stem="patches")
    learnt = create_objective(recipe, vocabulary)
    state = Learner(learnt.network(), learnt.loss()).averaged()
    facts = {name: getattr(recipe, name) for name in ("model", "image_size", "stem", "objective", "context_length")}
    return save_pretrained(folder, state, learnt.vocabulary, **facts)


@torch.no_grad()
def test_of_a_superclip_model_the_synset_head_is_exported(tmp_path, vocabulary):
    model, images = load(save_trained_as("superclip", tmp_path / "pretrain", vocabulary), device="cpu"), some_images(16)
    features = model.network.forward_head(model.network.forward_features(images), pre_logits=True)
    expected = torch.from_numpy(model.head_logits(features.numpy()))
    program = torch.export.load(export_program(model, tmp_path / "model.pt2")).module()
    of_timm = timm.create_model(f"local-dir:{export_timm(model, tmp_path / 'timm')}", pretrained=True).eval()
    for exported in (program, of_timm):
        torch.testing.assert_close(exported(images), expected, rtol=0, atol=1e-5)


def test_a_clip_model_which_has_no_synset_head_is_refused(tmp_path, vocabulary):
    folder = save_trained_as("clip", tmp_path / "pretrain", vocabulary)
    for export, path in ((export_timm, tmp_path / "timm"), (export_program, tmp_path / "model.pt2")):
        for model in (folder, load(folder, device="cpu")):
            with pytest.raises(ValueError, match="a model trained as 'clip' has no synset head to export"):
                export(model, path)


def test_a_models_own_folder_is_not_written_over(pretrained, tmp_path):
    model = pretrained("vit_nano8", 32, stem="patches")
    with pytest.raises(ValueError, match="pretrain holds a pre-trained model, .*: choose another destination"):
        export_timm(model, tmp_path / "pretrain")


def test_an_unfinished_folder_is_refused_as_load_does(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no finished model"):
        export_timm(tmp_path, tmp_path / "timm")


def test_an_export_is_written_over_an_older_one(pretrained, tmp_path):
    export_timm(pretrained("vit_nano8", 32, stem="patches"), tmp_path / "timm")
    other = Vocabulary(["n07739125", "n02084071"], [5, 4], num_captions=10)
    export_timm(pretrained("vit_nano8", 32, vocabulary=other, stem="patches"), tmp_path / "timm")
    assert timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).num_classes == 2
