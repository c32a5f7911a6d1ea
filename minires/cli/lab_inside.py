"""``minires lab cam``, ``features`` and ``filters``: pictures of what a trained network sees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, plural
from . import source
from .errors import Debug
from .options import check_picture, option, path_option
from .paths import DOWNLOADS, nonempty

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from rich.console import Console

    from ..lab.inside import GradCam

IMAGES, WHAT, RESULT = "The images", "What to look at", "The result"
MOST_ROWS, MOST_COLUMNS, MOST_CHANNELS = 12, 8, 32  # in a picture
DEAD = 0.01  # of the largest filter's norm

Photographs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="IMAGE",
        help="Photographs, files or folders; without any the first test images of the run.",
        show_default=False,
        parser=nonempty,
    ),
]
Photograph = Annotated[
    Path | None,
    typer.Argument(
        metavar="IMAGE", help="A photograph; without one a test image of the run.", show_default=False, parser=nonempty
    ),
]
Index = Annotated[
    str | None, option(IMAGES, "In place of photographs: numbers of test images, such as 3 or 0,3.", metavar="NUMBERS")
]
DataSet = Annotated[
    str | None,
    option(IMAGES, "The data set of --index, by default the run's: shapes, cifar10 or cifar100.", metavar="NAME"),
]
DataDir = Annotated[
    Path | None, path_option(IMAGES, f"Where CIFAR's files are; by default where downloads go: {DOWNLOADS}.")
]


def _out(name: str) -> Any:
    return Annotated[Path, path_option(RESULT, f"The .png, .svg or .pdf to draw; {name} by default.", metavar="FILE")]


Classes = Annotated[
    Path | None,
    path_option(
        IMAGES,
        "The names of the classes: a text with one a line, or JSON. By default the run's own, those of --dataset, or for 1,000 "
        "classes ImageNet's.",
        metavar="FILE",
    ),
]
Json = Annotated[bool, option(RESULT, "Print what was found as JSON, and nothing else.", "--json")]


def cam(
    images: Photographs = None,
    run: source.Run = None,
    model: source.Model = None,
    weights: source.Weights = None,
    model_option: source.ModelOption = None,
    normalize: source.Normalize = None,
    mean: source.Mean = None,
    std: source.Std = None,
    index: Index = None,
    dataset: DataSet = None,
    data_dir: DataDir = None,
    classes: Classes = None,
    target: Annotated[
        list[str] | None,
        option(WHAT, "A class, by name or number; may be given several times.", metavar="CLASS"),
    ] = None,
    top: Annotated[int, option(WHAT, "Without --target: how many of the most probable classes; 3 by default.")] = 3,
    layer: Annotated[
        str | None,
        option(WHAT, "The module whose feature map is taken, such as layer3; the last one by default.", metavar="NAME"),
    ] = None,
    out: _out("cam.png") = Path("cam.png"),  # type: ignore[valid-type]
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Heat maps over photographs: where the evidence for a class is."""
    from ..lab.inside import Scores
    from ..lab.inside.draw import Explained, draw_cams
    from . import display
    from .lab_images import check_out, class_names, class_number, pictures

    check_picture(out)
    if not 1 <= top <= MOST_COLUMNS:
        raise ConfigError(f"top must be a whole number from 1 to {MOST_COLUMNS}, not {top}")
    console = display.console(stderr=as_json)
    network = source.load_network(run, model, weights, None, model_option, normalize, mean, std)
    names = class_names(network, classes, dataset)
    wanted = None if not target else [class_number(network, names, text) for text in target]
    if wanted is not None and len(wanted) > MOST_COLUMNS:
        raise ConfigError(f"a row has up to {MOST_COLUMNS} classes, not {len(wanted)}")
    seen = pictures(network, images or (), index, dataset, data_dir, MOST_ROWS)
    check_out(out, seen)
    rows, found = [], []
    with display.bar(console, "looking", len(seen)) as advance:
        for picture in seen:
            scores = Scores(network.model, picture.input, layer)
            numbers = wanted or scores.probabilities[0].argsort(kind="stable")[::-1][:top].tolist()
            maps = [scores.cam(c) for c in numbers]
            told = [_facts(picture.name, names[c] if names else f"class {c}", m) for c, m in zip(numbers, maps)]
            titles = [f"{each['class']} {display.percent(each['probability'])}" for each in told]
            rows.append(Explained(picture.name, picture.photograph, [(t, m.heat) for t, m in zip(titles, maps)]))
            found += told
            advance()
    K, h, w = scores.maps.shape[1:]
    where = f"{scores.layer}, {K} channels of {h}×{w}"
    note = f"{where}. Selvaraju et al. 2017. Each heat map is scaled by its own largest value."
    _save(draw_cams(rows, f"Grad-CAM of {network.name}", note), out)
    if as_json:
        _print_json({"model": network.name, "layer": scores.layer, "channels": K, "map": [h, w], "maps": found})
        return
    console.print(f"{network.name}, {network.trained}: {where}\n")
    _print_cams(console, found)
    console.print(f"\ndrawn in {out}")


def features(
    image: Photograph = None,
    run: source.Run = None,
    model: source.Model = None,
    weights: source.Weights = None,
    model_option: source.ModelOption = None,
    normalize: source.Normalize = None,
    mean: source.Mean = None,
    std: source.Std = None,
    index: Index = None,
    dataset: DataSet = None,
    data_dir: DataDir = None,
    layer: Annotated[
        list[str] | None,
        option(
            WHAT,
            "A module whose output is drawn; may be given several times. By default the stem and every stage.",
            metavar="NAME",
        ),
    ] = None,
    channels: Annotated[int, option(WHAT, "How many of the strongest channels of each; 10 by default.")] = 10,
    out: _out("features.png") = Path("features.png"),  # type: ignore[valid-type]
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The strongest channels of a network's layers for a photograph."""
    import numpy as np

    from ..lab.inside import feature_maps
    from ..lab.inside.draw import draw_features, strongest
    from . import display
    from .lab_images import check_out, pictures
    from .tables import print_table

    check_picture(out)
    if not 1 <= channels <= MOST_CHANNELS:
        raise ConfigError(f"channels must be a whole number from 1 to {MOST_CHANNELS}, not {channels}")
    if layer and len(set(layer)) > MOST_ROWS:
        raise ConfigError(f"up to {MOST_ROWS} layers are drawn, not {len(set(layer))}")
    console = display.console(stderr=as_json)
    network = source.load_network(run, model, weights, None, model_option, normalize, mean, std)
    index = "0" if image is None and index is None and network.recipe is not None else index
    [picture] = pictures(network, () if image is None else [image], index, dataset, data_dir, 1)
    check_out(out, [picture])
    maps = feature_maps(network.model, picture.input, layer or None)
    for name, y in maps.items():
        if not np.isfinite(y).all():
            raise ConfigError(f"the feature maps of {name} are not finite: look at the weights of {network.source}")
    note = "Channels by the mean of their absolute values, largest first; each from its smallest value, dark, to its largest."
    figure = draw_features(
        picture.photograph, maps, f"Feature maps of {network.name} for {picture.name}", min(channels, _most(maps)), note
    )
    _save(figure, out)
    found = [
        {
            "layer": name,
            "shape": list(y.shape),
            "mean": float(y.mean(dtype=np.float64)),  # the sum of large ones is beyond float32
            "zeros": float((y == 0).mean()),
            "strongest": strongest(y)[:channels].tolist(),
        }
        for name, y in maps.items()
    ]
    if as_json:
        _print_json({"model": network.name, "image": picture.name, "layers": found})
        return
    console.print(f"{network.name}, {network.trained}, for {picture.name}\n")
    rows = [
        [
            *(str(f["layer"]), "×".join(map(str, y.shape)), f"{f['mean']:.3f}", display.percent((y == 0).mean())),
            ", ".join(map(str, f["strongest"][:5])),
        ]
        for f, y in zip(found, maps.values())
    ]
    print_table(console, ["layer", "channels and size", "mean", "zeros", "strongest channels"], rows)
    console.print(f"\ndrawn in {out}")


def filters(
    run: source.Run = None,
    model: source.Model = None,
    weights: source.Weights = None,
    model_option: source.ModelOption = None,
    out: _out("filters.png") = Path("filters.png"),  # type: ignore[valid-type]
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The filters of the first convolution, as tiles."""
    import numpy as np

    from ..lab.inside.draw import draw_filters
    from ..lab.inside.features import first_convolution, first_filters
    from . import display

    check_picture(out)
    console = display.console(stderr=as_json)
    network = source.load_network(run, model, weights, None, model_option)
    name, _ = first_convolution(network.model)
    found = first_filters(network.model)
    O, C, KH, KW = found.shape
    norms = np.sqrt((found.astype(np.float64) ** 2).sum(axis=(1, 2, 3)))
    if not np.isfinite(norms).all():
        raise ConfigError(f"the filters of {name} are not finite: look at the weights of {network.source}")
    dead = int((norms < DEAD * norms.max()).sum()) if norms.any() else O
    note = (
        "All by one scale: grey is 0."
        if C == 3
        else "A tile for each channel of each filter, all by one scale: grey is 0."
    )
    _save(draw_filters(found, f"First filters of {network.name}: {name}", note), out)
    if as_json:
        _print_json({"model": network.name, "layer": name, "shape": list(found.shape), "norms": norms.tolist()})
        return
    console.print(f"{network.name}, {network.trained}")
    console.print(f"{name}: {plural(O, 'filter')} of {C}×{KH}×{KW}; norms from {norms.min():.3g} to {norms.max():.3g}")
    if dead:
        console.print(f"{plural(dead, 'filter')} below {DEAD:.0%} of the largest norm")
    console.print(f"drawn in {out}")


def _facts(image: str, name: str, found: GradCam) -> dict[str, Any]:
    """What is told of a heat map: where its peak is, in shares of the picture, and how much of it is above half."""
    import numpy as np

    row, column = np.unravel_index(int(found.heat.argmax()), found.heat.shape)
    height, width = found.heat.shape
    seen = bool(found.heat.any())
    return {
        "image": image,
        "class": name,
        "number": int(found.target),
        "probability": float(found.probability),
        "peak": [(float(column) + 0.5) / width, (float(row) + 0.5) / height] if seen else None,
        "area": float((found.heat >= 0.5).mean()),
    }


def _print_cams(console: Console, found: list[dict[str, Any]]) -> None:
    from .display import percent
    from .tables import print_table

    rows, before = [], None
    for each in found:
        peak = ["no evidence", ""] if each["peak"] is None else [f"{100 * share:.0f} %" for share in each["peak"]]
        image = each["image"] if each["image"] != before else ""
        rows.append([image, each["class"], percent(each["probability"]), *peak, f"{100 * each['area']:.0f} %"])
        before = each["image"]
    print_table(
        console, ["image", "class", "probability", "peak from left", "from top", "area above half"], rows, wrapped=1
    )


def _most(maps: dict[str, NDArray[Any]]) -> int:
    return max(len(y) for y in maps.values())


def _save(figure: Figure, out: Path) -> None:
    from ..figures import save_figure

    try:
        save_figure(figure, out)
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written: {error.strerror or error}. Choose another place (--out)"
        ) from error


def _print_json(found: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(found))  # in ASCII: names of files may hold control characters
