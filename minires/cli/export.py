"""``minires export``: a trained network for other programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError, nearest, plural
from .errors import Debug
from .options import option, path_option
from .paths import command_line, nonempty
from .source import Mean, Model, ModelOption, Normalize, NumClasses, Std, Weights, check_source, load_network

if TYPE_CHECKING:
    from rich.text import Text

    from ..interop import OnnxFile
    from ..training.source import TrainedNetwork

ONNX = "ONNX"
FORMATS = {".onnx": "ONNX", ".safetensors": "safetensors", ".pth": "PyTorch", ".pt": "PyTorch"}
CHECKPOINTS = ("last.safetensors", "best.safetensors", "anomaly.safetensors")  # of a run, beside its config.toml


def export(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="The folder of a run, or one of its checkpoints, unless there are --weights; and the file to write: .onnx, "
            ".safetensors, .pth or .pt.",
            metavar="[RUN] FILE",
            show_default=False,
            parser=nonempty,
        ),
    ] = None,
    model: Model = None,
    weights: Weights = None,
    num_classes: NumClasses = None,
    model_option: ModelOption = None,
    normalize: Normalize = None,
    mean: Mean = None,
    std: Std = None,
    image_size: Annotated[
        int | None, option(ONNX, "The side of the images in pixels; by default that of the training images.")
    ] = None,
    dynamic_size: Annotated[
        bool, option(ONNX, "Images of any height and width, not of one size.", "--dynamic-size")
    ] = False,
    keep_batch_norm: Annotated[
        bool,
        option(
            ONNX,
            "Do not fold batch norms into the convolutions before them: all weights have their own names then.",
            "--keep-batch-norm",
        ),
    ] = False,
    with_normalization: Annotated[
        bool,
        option(
            ONNX,
            "The network normalises its input itself, float32 pixels from 0 to 1.",
            "--with-normalization",
        ),
    ] = False,
    softmax: Annotated[bool, option(ONNX, "Probabilities as the output, not logits.", "--softmax")] = False,
    classes: Annotated[
        Path | None,
        path_option(
            ONNX,
            "Names of the classes for the metadata, one a line or JSON; by default those that the run knows, or for 1,000 "
            "classes ImageNet's.",
            metavar="FILE",
        ),
    ] = None,
    opset: Annotated[int | None, option(ONNX, "The version of ONNX's operators, from 18 to 21; 21 by default.")] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Write over a file that is there.")] = False,
    debug: Debug = False,
) -> None:
    """A trained network for other programs."""
    from .. import interop
    from ..interop.onnx_export.file import require_onnx
    from . import display

    run, out = _run_and_file(paths or [], model, weights)
    suffix = _format(out)
    onnx_options = {
        "--image-size": image_size,
        "--dynamic-size": dynamic_size,
        "--keep-batch-norm": keep_batch_norm,
        "--with-normalization": with_normalization,
        "--softmax": softmax,
        "--classes": classes,
        "--opset": opset,
    }
    unused = [name for name, value in onnx_options.items() if value not in (None, False)]
    if suffix != ".onnx" and unused:
        raise ConfigError(f"{unused[0]} is for ONNX files, and {out.name} is to hold weights alone")
    if suffix == ".onnx":
        require_onnx()
    _check_target(out, [path for path in (run, weights) if path is not None], force)
    network = load_network(run, model, weights, num_classes, model_option, normalize, mean, std)
    if with_normalization and network.normalization is None:
        raise ConfigError(
            "how are the images normalised? --with-normalization needs --normalize NAME, or --mean and --std, beside --weights"
        )
    if getattr(network.model, "aux", None) is not None:
        network.model.aux = None  # a classifier for training alone, which other programs' networks have not
    console = display.console()
    params = sum(p.size for p in network.model.parameters())
    title = f"{network.name}, {params:,} parameters, {network.trained}"
    kept = [name for name in network.report.kept if name in network.model.state_dict()] if network.report else []
    if kept:
        title += f"; not trained: {', '.join(kept)}"
    if suffix != ".onnx":
        save = interop.save_safetensors if suffix == ".safetensors" else interop.save_torch
        save(network.model, out)
        console.print(title)
        console.print(_weights(out, suffix, len(network.model.state_dict())))
        return
    with display.spinner(console, "writing and checking the ONNX file"):
        file = interop.export_onnx(
            network.model,
            out,
            image_size=image_size if image_size is not None else network.image_size,
            dynamic_size=dynamic_size,
            fold_batch_norm=not keep_batch_norm,
            mean=network.normalization.mean if network.normalization else None,
            std=network.normalization.std if network.normalization else None,
            with_normalization=with_normalization,
            softmax=softmax,
            class_names=_class_names(network, classes),
            name=network.name,
            opset=opset if opset is not None else interop.OPSET,
        )
    console.print(title)
    console.print(_onnx(file, network, with_normalization))


def _run_and_file(paths: list[Path], model: str | None, weights: Path | None) -> tuple[Path | None, Path]:
    """The run, if one is given, and the file to write. Raises ConfigError."""
    from_weights = model is not None or weights is not None
    wanted = 1 if from_weights else 2
    if len(paths) < wanted:
        from_run = paths and (paths[0].is_dir() or paths[0].suffix.lower() not in FORMATS)
        missing = "a file to write" if from_weights or from_run else "a run" if paths else "a run and a file to write"
        verb = "are" if missing == "a run and a file to write" else "is"
        raise ConfigError(
            f"{missing} {verb} missing: `{command_line('minires', 'export', 'RUN', 'model.onnx')}`, or --model NAME, --weights "
            "FILE and the file to write"
        )
    if len(paths) > wanted:
        words = (
            "with --weights there is one path, the file to write"
            if from_weights
            else "there are a run and a file to write"
        )
        raise ConfigError(f"{words}, and here are {len(paths)}: {', '.join(map(str, paths))}")
    run = None if from_weights else paths[0]
    check_source(run, model, weights)
    return run, paths[-1]


def _format(out: Path) -> str:
    """The end of the file's name, or ConfigError for one that is no format's."""
    suffix = out.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(
            f"{out} does not tell the format: its name ends in {', '.join(FORMATS)}{nearest(suffix, FORMATS)}"
        )
    return suffix


def _check_target(out: Path, sources: list[Path], force: bool) -> None:
    """Raise ConfigError for a file that must not be written, before anything is loaded."""
    if not out.parent.is_dir():
        raise ConfigError(f"there is no folder {out.parent} for {out.name}")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: name a file")
    if any(source.exists() and out.exists() and out.samefile(source) for source in sources):
        raise ConfigError(f"{out} is what is read: name another file to write")
    if out.name in CHECKPOINTS and (out.parent / "config.toml").exists():
        raise ConfigError(f"{out} is where a run has a checkpoint: name another file to write")
    if os.path.lexists(out) and not force:
        raise ConfigError(f"{out} is there already: --force writes over it")


def _class_names(network: TrainedNetwork, path: Path | None) -> tuple[str, ...] | None:
    """The names for the metadata; None where classes have numbers alone."""
    from ..data import class_names

    if path is None and len(network.classes or ()) != network.num_classes and network.num_classes != 1000:
        return None
    return class_names(network.num_classes, path, network.classes)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"


def _weights(out: Path, suffix: str, count: int) -> Text:
    from .display import pairs

    read = "safetensors.torch.load_file({!r})" if suffix == ".safetensors" else "torch.load({!r}, weights_only=True)"
    return pairs(
        [
            ("written", f"{out}, {_size(out)}, {plural(count, 'array')}"),
            ("PyTorch", f"model.load_state_dict({read.format(str(out))})"),
        ]
    )


def _onnx(file: OnnxFile, network: TrainedNetwork, inside: bool) -> Text:
    from ..interop.onnx_export.check import TOLERANCE
    from .display import pairs

    if inside:
        pixels = "pixels from 0 to 1"
    elif network.normalization is None:
        pixels = "pixels from 0 to 1, normalised as in training"
    else:
        mean, std = (
            ", ".join(f"{v:.4g}" for v in values) for values in (network.normalization.mean, network.normalization.std)
        )
        pixels = f"pixels from 0 to 1, less {mean}, divided by {std}"
    if file.difference is None:
        checked = 'by the ONNX checker alone: `pip install "minires[onnx]"` for ONNX Runtime'
    else:
        checked = f"against ONNX Runtime on 1 and on 7 random images: differences up to {file.difference:.1e}"
        if file.difference > TOLERANCE:
            checked += ", which is rounding: in float32 the network is as far from its values in float64"
    return pairs(
        [
            ("written", f"{file.path}, {_size(file.path)}, opset {file.opset}, {file.nodes:,} operators"),
            ("input", f"{file.input}: {pixels}"),
            ("output", file.output),
            ("checked", checked),
        ]
    )
