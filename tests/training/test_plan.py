"""What a run takes, against figures worked out by hand and files really written."""

import pytest
import torch

from catlip_lite.models import create_vit
from catlip_lite.training.optimiser import Ema, create_adamw
from catlip_lite.training.plan import main, shown, training_plan
from catlip_lite.training.recipes import recipe_for

B16 = 104_657_408  # parameters with 24,320 classes
STATISTICS = 2 * (2 * 192 * 4 + 8)  # bytes of the stem's two batch norms: means and variances of 192 channels, a counter
GPU = {"speed": 0.4 * 989e12}


def values(recipe, num_classes=24_320, devices=64, **given):
    return {quantity: row[0] for quantity, row in training_plan(recipe, num_classes, devices, **given).items()}


def test_memory_and_checkpoint_of_the_papers_b16():
    plan = values(recipe_for("vit_b16", processes=64))
    assert plan["parameters"] == B16
    assert plan["state_ddp"] == 20 * B16 + 2 * STATISTICS
    assert plan["state_fsdp"] == 20 * B16 / 8 + 2 * STATISTICS
    assert plan["checkpoint"] == 16 * B16 + 2 * STATISTICS + 158 * 4  # AdamW counts the steps of each of 158 tensors
    assert plan["model"] == 4 * B16 + STATISTICS


def test_compute_of_b16_at_one_scale():
    plan = values(recipe_for("vit_b16", processes=64, multi_scale="none"), **GPU)
    assert plan["images_per_step"] == 65_536
    assert plan["samples_seen"] == 13_107_200_000
    assert plan["flops_per_image"] == 106_357_469_184
    assert plan["total_flops"] == pytest.approx(1.39405e21, rel=1e-5)
    assert plan["images_per_second_per_device"] == pytest.approx(3719.53, rel=1e-5)  # 0.4 * 989e12 / 106.357e9
    assert plan["images_per_second"] == pytest.approx(64 * 3719.53, rel=1e-5)
    assert plan["device_hours"] == pytest.approx(978.85, rel=1e-4)  # 1.39405e21 / 3.956e14 / 3600
    assert plan["hours"] == pytest.approx(978.85 / 64, rel=1e-4)


def test_clip_takes_a_text_tower_beside():
    pytest.importorskip("open_clip")
    plan = values(recipe_for("vit_b16", objective="clip", processes=64, multi_scale="none"))
    image, text = 86_348_544, 63_428_096  # parameters; 512 rows in place of the vocabulary's, and no bias
    assert plan["parameters"] == image + text
    assert plan["state_ddp"] == pytest.approx(20 * (image + text), rel=1e-4)
    # Per image: 24,320 rows of 768 less, 512 more; 77 tokens of a caption.
    assert plan["flops_per_image"] == 106_357_469_184 - 6 * 768 * (24_320 - 512) + 3 * 5_959_540_736


def test_the_papers_scales_see_a_quarter_more_images_for_the_same_compute():
    plan = values(recipe_for("vit_b16", processes=64))
    assert plan["images_per_step"] == pytest.approx(64 * 16_927 / 13)  # 1302 a GPU, the mean over the thirteen sizes
    assert plan["samples_seen"] == pytest.approx(16.667e9, rel=1e-4)
    assert plan["total_flops"] == pytest.approx(1.39405e21, rel=0.005)


def test_an_images_flops_are_the_mean_over_images_not_over_sizes():
    recipe = recipe_for("vit_b16", processes=64, max_steps=1000)
    plan = values(recipe)
    assert plan["flops_per_image"] == pytest.approx(plan["total_flops"] / plan["samples_seen"])
    assert plan["flops_per_image"] < 0.8 * 106_357_469_184  # there are six images of 128 pixels for one of 320


def test_reading_follows_from_the_size_of_an_image():
    plan = values(recipe_for("vit_b16", processes=64, multi_scale="none"), jpeg_bytes=50_000, **GPU)
    assert plan["shards_per_second"] == pytest.approx(23.805, rel=1e-4)
    assert plan["read_bandwidth"] == pytest.approx(238_050 * 50_000, rel=1e-4)
    assert plan["bytes_read"] == 13_107_200_000 * 50_000


def test_nothing_is_told_of_what_was_not_given():
    quantities = set(values(recipe_for("vit_nano8"), num_classes=9, devices=1))
    assert not quantities & {"hours", "device_hours", "images_per_second", "shards_per_second", "read_bandwidth", "bytes_read"}


def test_tokens_left_out_until_the_tail_save_in_the_steps_before_it():
    whole = values(recipe_for("vit_s16", multi_scale="none", max_steps=100, processes=64))
    masked = values(recipe_for("vit_s16", multi_scale="none", max_steps=100, patch_drop=0.5, unmasked_tail=0.25, processes=64))
    always = values(recipe_for("vit_s16", multi_scale="none", max_steps=100, patch_drop=0.5, unmasked_tail=0.0, processes=64))
    assert masked["total_flops"] == pytest.approx(0.25 * whole["total_flops"] + 0.75 * always["total_flops"])
    assert always["total_flops"] < 0.52 * whole["total_flops"]


def test_stem_and_pooling_are_the_recipes():
    plan = values(recipe_for("vit_b16", stem="patches", pooling="avg", multi_scale="none", processes=64))
    with torch.device("meta"):
        network = create_vit("vit_b16", 24_320, stem="patches", pooling="avg")
    assert plan["parameters"] == sum(p.numel() for p in network.parameters())


def test_a_checkpoint_really_has_the_planned_size(tmp_path):
    torch.manual_seed(0)
    network = create_vit("vit_ti16", num_classes=1000)
    optimiser, ema = create_adamw(network, 0.2), Ema(network.state_dict(), 5e-4)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    state = {"model": network.state_dict(), "optimiser": optimiser.state_dict(), "ema": ema.state}
    torch.save(state, tmp_path / "checkpoint.pt")
    planned = values(recipe_for("vit_ti16", processes=64), num_classes=1000)["checkpoint"]
    assert (tmp_path / "checkpoint.pt").stat().st_size == pytest.approx(planned, rel=0.003)  # names, too


# ---------------------------------------------------------------- as a table to read


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1_674_525_336, "B", "1.675 GB"),
        (106_357_469_184, "FLOP", "106.4 GFLOP"),
        (1.4e21, "FLOP", "1.4 ZFLOP"),
        (104_657_408, "", "104,657,408"),
        (16.35, "h", "16.35 h"),
        (0.0031, "shards/s", "0.0031 shards/s"),
    ],
)
def test_values_are_shown_with_their_units(value, unit, text):
    assert shown(value, unit) == text


def test_the_command_prints_the_papers_recipe_with_as_many_devices_as_micro_batches(capsys):
    main(["vit_b16", "--mfu", "0.4", "--peak-tflops", "989", "--jpeg-kb", "50"])
    printed = capsys.readouterr().out
    assert "vit_b16 at 224 px (multi-scale: paper), 24,320 classes, 64 device(s), 200,000 steps of 65,536 images" in printed
    lines = {line.split()[0]: line for line in printed.splitlines()[1:]}
    assert "104,657,408" in lines["parameters"]
    assert "1.675 GB" in lines["checkpoint"]
    assert lines.keys() >= {"device_hours", "read_bandwidth"}


def test_the_command_refuses_what_the_recipe_refuses(capsys):
    with pytest.raises(SystemExit):
        main(["vit_b16", "--devices", "7"])
    assert "batch_size=65536 must be a multiple" in capsys.readouterr().err
