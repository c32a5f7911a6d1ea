"""Load weights into a model: all of them or none."""

from __future__ import annotations

import inspect
import math
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import models, nn
from ..errors import ConfigError, WeightsError, brief, plural
from .files import Weights, read
from .names import CLASSIFIERS, translate
from .report import LoadReport, Misshapen

BATCHES = ".num_batches_tracked"  # needed to train on with momentum=None alone; files of PyTorch before 0.4.1 lack it
LEFTOVERS = ("aux.", "n_averaged")  # an auxiliary classifier, of training alone; torch.optim.swa_utils's counter

MOST_TIMES, MORE_NAMES = 4, 1000  # more names than so many times the model's and some are not compared one by one
HEADS = tuple(f"{name}." for name in CLASSIFIERS)  # a head of several layers has such names too


def load_weights(model: nn.Module, path: Path | str, *, replace_head: bool = False) -> LoadReport:
    """Load the weights in a file into a model: all or, with an error, none. Returns what was found, key by key.

    path: safetensors, or a file that torch.save wrote; see ``read_weights``. Names of torchvision, timm and of well-known code
    for CIFAR are translated (``names.py``). replace_head: the last linear layer may be missing or of another shape in the
    file, and stays as it is in the model then. A backbone (features_only) ignores the classifier. Numbers are converted to the
    model's dtype. Raises WeightsError when names are missing or unexpected (``num_batches_tracked`` may be missing), when
    shapes differ, when a weight is not a finite real number, and for a file that cannot be read.
    """
    weights = read(path)
    return _load(model, _Match.of(model, type(model).__name__, weights, str(path)), replace_head)


def create_model(
    name: str, path: Path | str, *, num_classes: int | None = None, model_options: dict[str, Any] | None = None
) -> tuple[nn.Module, LoadReport]:
    """The network called ``name`` with the weights in a file, in evaluation mode, and the report of ``load_weights``.

    The number of classes, that of the images' channels, whether shortcuts are projections (option "B") or padded with zeros
    ("A"), and whether the stem is that of ``small_images`` are the file's, unless model_options says otherwise. num_classes:
    if the file has another number, the last linear layer is a new one of so many classes. Raises WeightsError as
    ``load_weights``, ConfigError for an unknown name or option.
    """
    options = dict(model_options or {})
    if num_classes is not None:
        options["num_classes"] = num_classes
    model, weights, match, inferred, default = _compare(name, path, options)
    if inferred:
        with suppress(ConfigError):  # of a number that no network has: the model as it was shows what differs
            model = models.create(name, **options | inferred)
        match = _Match.of(model, name, weights, str(path))
    report = _load(model, match, replace_head=num_classes is not None)
    told = _beside_defaults(inferred, default)
    if told:
        report.notes.append(f"so {name} with " + ", ".join(f"{option}={told[option]}" for option in sorted(told)))
    if "max_pool" not in options and _may_lack_a_pool(model, report):
        report.notes.append("no max pool after the 3×3 stem, which the file does not tell: max_pool=true has one")
    return model.eval(), report


def inferred_options(name: str, path: Path | str, model_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """The options with which ``create_model`` would make the network, beside those given, where they are not the defaults.

    Its errors for a name, an option or a file; {} for a file of another network.
    """
    options = dict(model_options or {})
    *_, inferred, default = _compare(name, path, options)
    return _beside_defaults(inferred, default)


def _compare(
    name: str, path: Path | str, options: dict[str, Any]
) -> tuple[nn.Module, Weights, _Match, dict[str, Any], str | None]:
    """(a network of that name, the weights, how they fit it, ``_inferred`` of these, the default option of its shortcuts).

    The option is None where it is given or there is no choice; else the network has projections, which shows whether the
    file has some.
    """
    default = _default_option(name) if "option" not in options else None
    model = models.create(name, **options | ({"option": "B"} if default else {}))
    weights = read(path)
    match = _Match.of(model, name, weights, str(path))
    return model, weights, match, _inferred(name, model, match, options, default), default


def _beside_defaults(inferred: dict[str, Any], default: str | None) -> dict[str, Any]:
    """What ``_inferred`` has found, without the option of shortcuts that is the default."""
    option = {} if default is None else {"option": inferred.get("option", "B")}
    return {name: value for name, value in (inferred | option).items() if (name, value) != ("option", default)}


def _may_lack_a_pool(model: nn.Module, report: LoadReport) -> bool:
    """Whether one code with these names pools after the stem, and another does not.

    Both have torchvision's names: huyvnphan/PyTorch_CIFAR10, and torchvision's networks whose ``maxpool`` was replaced.
    """
    without = isinstance(model, models.ResNet) and isinstance(model.maxpool, nn.Identity)
    return without and any(".downsample." in theirs for theirs, _ in report.matched)


class _Match(NamedTuple):
    """report: what fits what. arrays: {name in the model: array in its shape}. head: the path of the last linear layer.
    strangers: the unexpected names, translated. convolutions: those in the file."""

    report: LoadReport
    arrays: dict[str, NDArray]
    head: str
    strangers: dict[str, str]
    convolutions: int

    @classmethod
    def of(cls, model: nn.Module, name: str, weights: Weights, path: str) -> _Match:
        own, head = model.state_dict(), _classifier(model)
        if len(weights.arrays) > MOST_TIMES * len(own) + MORE_NAMES:
            raise WeightsError(
                f"{path} does not fit {name}: it has {len(weights.arrays):,} arrays, and {name} {len(own):,}"
            )
        names = translate(weights.arrays, own, head)
        report = LoadReport(path, name, weights.place, notes=list(weights.notes))
        arrays: dict[str, NDArray] = {}
        leftovers = (*LEFTOVERS, *HEADS) if getattr(model, "features_only", False) else LEFTOVERS
        for theirs, ours in names.items():
            array = weights.arrays[theirs]
            if ours not in own:
                (report.ignored if ours.startswith(leftovers) else report.unexpected).append(theirs)
                continue
            fitting = _fitting(array, own[ours].shape)
            if fitting is None:
                report.misshapen.append(Misshapen(theirs, ours, array.shape, own[ours].shape))
            else:
                arrays[ours] = fitting
                report.matched.append((theirs, ours))
        report.unexpected.sort(key=lambda theirs: theirs.endswith(BATCHES))  # which say the least
        there = set(names.values())
        for name in own:
            if name not in there and not name.endswith(BATCHES):
                (report.kept if name.startswith(LEFTOVERS) else report.missing).append(name)
        strangers = {theirs: names[theirs] for theirs in report.unexpected}
        convolutions = sum(a.ndim == 4 and names[theirs] != f"{head}.weight" for theirs, a in weights.arrays.items())
        return cls(report, arrays, head, strangers, convolutions)


def _fitting(array: NDArray, shape: tuple[int, ...]) -> NDArray | None:
    """The array in this shape, if it differs by axes of length 1 at the end: timm's last layer is a 1×1 convolution."""
    if array.shape == shape:
        return array
    longer, shorter = sorted((array.shape, shape), key=len, reverse=True)
    if longer[: len(shorter)] == shorter and set(longer[len(shorter) :]) == {1}:
        return array.reshape(shape)
    return None


def _classifier(model: nn.Module) -> str:
    """The path of the last linear layer, or ""."""
    try:
        return models.classifier(model)[0]
    except ConfigError:
        return ""


def _default_option(name: str) -> str | None:
    """ "A" or "B", if the network called ``name`` can have either of these shortcuts; None for a plain network too."""
    if name not in models.MODELS:
        return None
    parameter = inspect.signature(models.MODELS[name]).parameters.get("option")
    return parameter.default if parameter and parameter.default in ("A", "B") else None


def _inferred(name: str, model: nn.Module, match: _Match, given: dict[str, Any], default: str | None) -> dict[str, Any]:
    """Options of the network that the file is for, where they are not given, and differ from those of ``model``.

    default: the option of the network's shortcuts, if it is to be inferred; those of ``model`` are projections then.
    """
    options: dict[str, Any] = {}
    first = next((path for path, array in model.state_dict().items() if array.ndim == 4), "")
    for misshapen in match.report.misshapen:
        found, wanted = misshapen.found, misshapen.wanted
        if not math.prod(found):
            continue
        if misshapen.in_model == f"{match.head}.weight" and found[1:2] == wanted[1:] and math.prod(found[2:]) == 1:
            options["num_classes"] = found[0]
        if misshapen.in_model == first and len(found) == 4 and found[0] == wanted[0]:
            options["small_images"] = found[2:] == (3, 3) and wanted[2:] == (7, 7)
            if found[1] != wanted[1] and (found[2:] == wanted[2:] or options["small_images"]):
                options["in_channels"] = found[1]
    known = inspect.signature(models.MODELS[name]).parameters
    options = {option: value for option, value in options.items() if option not in given and option in known and value}
    if default:
        projections = {path for path in model.state_dict() if ".downsample." in path}
        lacking = projections and projections <= {
            *match.report.missing,
            *(p for p in projections if p.endswith(BATCHES)),
        }
        options["option"] = "A" if lacking else "B"
    if options == {"option": "B"}:
        return {}
    return options


def _load(model: nn.Module, match: _Match, replace_head: bool) -> LoadReport:
    """Load what matches, when all of it is right."""
    report, own = match.report, model.state_dict()
    if replace_head:
        _keep_head(match)
    if not report.ok:
        raise WeightsError(f"{report.misfit()}{_way_out(match, own)}", report)
    for theirs, ours in report.matched:
        _check(theirs, match.arrays[ours], own[ours].dtype, report.path)
    model.load_state_dict(match.arrays, strict=False)
    return report


def _keep_head(match: _Match) -> None:
    """Take the last layer out of what does not fit."""
    report = match.report
    names = [f"{match.head}.weight", f"{match.head}.bias"]
    names += [m.in_model for m in report.misshapen if m.in_model.startswith(LEFTOVERS)]
    misfit = set(report.missing) | {m.in_model for m in report.misshapen}
    if not misfit & set(names):
        return
    strangers = [theirs for theirs, ours in match.strangers.items() if ours.startswith(HEADS)]
    report.ignored.extend(strangers)
    report.unexpected[:] = [name for name in report.unexpected if name not in strangers]
    report.kept.extend(name for name in names if name in misfit or name in match.arrays)
    report.ignored.extend(m.in_file for m in report.misshapen if m.in_model in names)
    report.ignored.extend(theirs for theirs, ours in report.matched if ours in names)
    report.missing[:] = [name for name in report.missing if name not in names]
    report.misshapen[:] = [m for m in report.misshapen if m.in_model not in names]
    report.matched[:] = [pair for pair in report.matched if pair[1] not in names]
    for name in names:
        match.arrays.pop(name, None)


def _way_out(match: _Match, own: dict[str, NDArray]) -> str:
    """What to do, where that is known, or what tells the networks apart."""
    report = match.report
    head = [m for m in report.misshapen if m.in_model.startswith(f"{match.head}.")]
    if head and len(head) == len(report.misshapen) and not (report.missing or report.unexpected):
        return f". It has {head[0].found[0]} classes: build the network with so many, or ask for a new last layer"
    stem = [m for m in report.misshapen if len(m.found) == 4 and (m.found[2:], m.wanted[2:]) == ((3, 3), (7, 7))]
    if stem and len(stem) == len(report.misshapen) and not (report.missing or report.unexpected):
        return ". Its stem is that for images such as CIFAR's: build the network with small_images=True"
    headless = report.missing and {*report.missing} <= {f"{match.head}.weight", f"{match.head}.bias"}
    if headless and not report.misshapen and all(ours.startswith(HEADS) for ours in match.strangers.values()):
        return ". It has no last layer that is known: ask for a new one, and train it"
    needed = {name for name in own if not name.endswith(BATCHES)}
    if not (report.missing or report.misshapen) and needed <= set(translate(match.strangers, own, match.head).values()):
        return f". It holds them twice, as {brief(report.unexpected[0])} too: save those by themselves that are to be loaded"
    there, here = match.convolutions, sum(array.ndim == 4 for array in own.values())
    if there != here:
        return f". It has {plural(there, 'convolution')}, and {report.model} {here}: choose the network that it is of"
    return ""


def _check(name: str, array: NDArray, dtype: np.dtype, path: str) -> None:
    """Raise WeightsError for numbers that cannot be those of the model's array of this dtype."""
    if array.dtype.kind != dtype.kind and not (array.dtype.kind in "uf" and dtype.kind == "i"):
        raise WeightsError(
            f"{path}: {brief(name)} is of {array.dtype} and must be real numbers such as {dtype}; nothing was loaded"
        )
    if not array.size:
        return
    least, most = array.min(), array.max()
    if dtype.kind == "f":
        if not (math.isfinite(least) and math.isfinite(most)):
            wrong = "NaN" if np.isnan(array).any() else "Inf"
            raise WeightsError(f"{path}: {brief(name)} has {wrong} among its numbers; nothing was loaded")
        if max(-float(least), float(most)) > float(np.finfo(dtype).max):
            raise WeightsError(f"{path}: {brief(name)} has numbers that are too large for {dtype}; nothing was loaded")
    if name.endswith("running_var") and least < 0:
        raise WeightsError(f"{path}: {brief(name)} is a variance, and has {float(least):g}; nothing was loaded")
    # an average of counts is a float, and cut as in PyTorch
    if dtype.kind == "i" and not 0 <= least <= most < 2.0**63:
        wrong = most if least >= 0 else least
        raise WeightsError(f"{path}: {brief(name)} is a count, and has {wrong}; nothing was loaded")
