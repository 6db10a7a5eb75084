"""A pre-trained model for those who do not have this package: a folder that plain timm loads, or one file for plain PyTorch.

`export_timm` where timm has the architecture, `export_program` for every model; both read what `save_pretrained` wrote.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from ..artefacts import atomic_path
from ..data.images import Evaluation
from ..labels import Vocabulary
from .image_model import ImageModel
from .pretrained import PretrainedModel, load, network_of
from .vit import shape_of, timm_arguments

ModelLike = PretrainedModel | str | os.PathLike  # what `load` gives, or its folder
SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}  # width -> timm's name for it


def export_timm(model: ModelLike, destination: str | os.PathLike) -> Path:
    """Write a folder that timm loads without this package, and return its path; logits are the model's own.

    The folder gets `model.safetensors`, and `config.json` with the architecture, the evaluation transform (mean 0 and std 1, so
    pixels in 0..1), the WNIDs as `label_names`, synset names as `label_descriptions`:

        network = timm.create_model("local-dir:<folder>", pretrained=True)      # timm >= 1.0.26; or hf-hub:, uploaded
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))

    Only stem="patches" has an equal in timm. Its `vit_base_mci_224` is nearest to the reference's stem, but does not pad the
    first convolution: with B/16's weights it gives our logits for images moved by one pixel. So for the other stems there is
    `export_program`. Raises ValueError for another stem or a destination that holds a model of this package.
    """
    destination = Path(destination)
    if (destination / "vocabulary.parquet").exists():
        raise ValueError(f"{destination} holds a pre-trained model, which would be lost: choose another destination")
    model = _loaded(model)
    config = timm_config(model.network, model.vocabulary, model.image_size)
    destination.mkdir(parents=True, exist_ok=True)
    with atomic_path(destination / "config.json") as staging:
        staging.write_text(json.dumps(config, indent=2))
    with atomic_path(destination / "model.safetensors") as staging:
        save_file(_weights(model), staging, metadata={"format": "pt"})
    return destination


def timm_config(network: VisionTransformer, vocabulary: Vocabulary, image_size: int) -> dict:
    """The config.json with which timm builds a network like this one; raises ValueError for a stem that timm has not."""
    shape = shape_of(network)
    if shape.stem != "patches":
        other = "use export_program (one file for plain PyTorch), or pre-train with stem='patches'"
        raise ValueError(f"stem={shape.stem!r} has no equal in timm, only 'patches' has: {other}")
    size, ends = SIZES.get(shape.width, "base"), {"first_conv": "patch_embed.proj", "classifier": "head"}
    return {
        "architecture": f"vit_{size}_patch{14 if size == 'huge' else 16}_224",  # model_args say whatever differs
        "num_classes": len(vocabulary),
        "num_features": shape.width,
        "global_pool": shape.pooling,
        "model_args": timm_arguments(shape, image_size),
        "pretrained_cfg": {**_transform(image_size), "num_classes": len(vocabulary), **ends},
        "label_names": vocabulary.wnids,
        "label_descriptions": dict(zip(vocabulary.wnids, vocabulary.names, strict=True)),
    }


def export_program(model: ModelLike, destination: str | os.PathLike) -> Path:
    """Write the network, of any stem and pooling, as one .pt2 file that PyTorch runs without this package; return its path.

    The program takes float32 [B, 3, S, S], S the model's image size, B free, and gives logits float32 [B, V], on the CPU. With
    it come the classes and the evaluation transform, whose mean and std (0 and 1: pixels in 0..1) are the caller's to take off:

        extra = {"classes.json": "", "transform.json": ""}
        network = torch.export.load("model.pt2", extra_files=extra).module()
        classes = json.loads(extra["classes.json"])         # [[WNID, name], ...], in the order of the logits

    It is for inference: BatchNorm's statistics are fixed, other sizes than S are refused. Raises ValueError for another ending.
    """
    destination = Path(destination)
    if destination.suffix != ".pt2":
        raise ValueError(f"{destination} must end in .pt2, PyTorch's ending for exported programs: choose another name")
    model = _loaded(model)
    # Anew: in bf16 on CPUs the model's attention is not that of its start.
    network = network_of({**model.config, "objective": "catlip"}, num_classes=len(model.vocabulary))
    network.load_state_dict(_weights(model))
    images = torch.zeros(2, 3, model.image_size, model.image_size)  # two, as a batch of one would be taken for a constant
    program = torch.export.export(network.eval(), (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    classes = list(zip(model.vocabulary.wnids, model.vocabulary.names, strict=True))
    extra = {"classes.json": json.dumps(classes), "transform.json": json.dumps(_transform(model.image_size))}
    destination.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(destination) as staging, open(staging, "wb") as file:
        torch.export.save(program, file, extra_files=extra)
    return destination


def _loaded(model: ModelLike) -> PretrainedModel:
    """Raises ValueError for one without a synset head."""
    model = model if isinstance(model, ImageModel) else load(model, device="cpu")
    if not isinstance(model, PretrainedModel):
        raise ValueError(f"a model trained as {model.config['objective']!r} has no synset head to export: give one that has")
    return model


def _weights(model: PretrainedModel) -> dict[str, torch.Tensor]:
    """Those of the backbone and the synset head, without CLIP's projection beside it."""
    kept = {name: value for name, value in model.network.state_dict().items() if name != "head.projection"}
    return {name: value.detach().cpu().contiguous() for name, value in kept.items()}


def _transform(size: int) -> dict:
    """`Evaluation` and the network's input in timm's terms: the short side resized, the centre, then mean and std."""
    share = size / (Evaluation(size).resized_short_side + 1e-6)  # timm divides and rounds down
    pixels = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    return {"input_size": [3, size, size], **pixels, "interpolation": "bilinear", "crop_mode": "center", "crop_pct": share}
