"""Trained runs that an experiment looks at beside that of ``--run``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..models.blocks import BasicBlock, Bottleneck, PreActBlock
from ..nn import Conv2d, Module
from .setting import Setting


def run_names(*runs: str | None) -> Sequence[str]:
    """What to call runs in tables and pictures: their folders' names, or their paths where two have the same; "" for None."""
    names = ["" if run is None else Path(run).resolve().name for run in runs]
    return [str(run) if name and names.count(name) > 1 else name for run, name in zip(runs, names)]


def of_run(run: str) -> dict[str, str]:
    """The names of a run's model and data set, for the settings of a result."""
    from .. import training

    recipe, _, _ = training.load_run(Path(run))
    return {"model": recipe.model, "dataset": recipe.dataset}


def other_network(setting: Setting, run: str) -> Module:
    """The network of a run, float32, to be compared with the setting's, on its images.

    Raises what loading raises, and ConfigError for a run of another data set, or of images of another size.
    """
    from .. import training

    recipe, model, checkpoint = training.load_run(Path(run))
    dataset, whose, wanted = setting.dataset, "--dataset is", setting.image_size
    if setting.run is not None:
        first, _, of_first = training.load_run(Path(setting.run))
        dataset, whose, wanted = first.dataset, f"{setting.run} of", of_first.info.get("image_size")
    if recipe.dataset != dataset:
        raise ConfigError(f"{run} is a run of {recipe.dataset} and {whose} {dataset}: compare networks of one data set")
    side = checkpoint.info.get("image_size")
    if side is not None and wanted not in (None, side):
        way_out = f"name a run of that size too (--run), or give --image-size {side}"
        way_out = way_out if setting.run is None else "compare runs of one size"
        raise ConfigError(
            f"{run} was trained on images of {side}×{side} pixels, and the others here have {wanted}×{wanted}: {way_out}"
        )
    return model.to(np.float32)


def control(setting: Setting, run: str) -> Module:
    """``other_network``, without shortcuts. Raises ConfigError for a network that has some."""
    model = other_network(setting, run)
    if has_shortcuts(model):
        raise ConfigError(
            f"{run} (--plain) is a residual network: the control is a run of a plain one, such as plain20"
        )
    return model


def deeper_network(setting: Setting, run: str) -> Module:
    """``other_network``, with more convolutions than the setting's. Raises ConfigError for one without."""
    model, shallow = other_network(setting, run), setting.network()
    counts = [sum(isinstance(m, Conv2d) for m in network.modules()) for network in (model, shallow)]
    if counts[0] <= counts[1]:
        raise ConfigError(
            f"{run} (--deeper) has {counts[0]} convolutions, and the network that it is compared with {counts[1]}: give the "
            "run of a deeper one"
        )
    return model


def has_shortcuts(model: Module) -> bool:
    """Whether a block of ``minires.models`` in the network has a shortcut."""
    blocks = [m for m in model.modules() if isinstance(m, BasicBlock | Bottleneck | PreActBlock)]
    return any(block.downsample is not None for block in blocks)
