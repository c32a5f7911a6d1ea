"""Runs, as they are committed: what was computed and by which settings, without this machine's paths."""

import shutil
from dataclasses import replace
from pathlib import Path

from minires.training import Checkpoint, Recipe, RunFolder

MACHINES = ("data_dir", "threads")  # settings that are not committed


def keep_run(source: Path, target: Path, weights: bool) -> None:
    """Copy the recipe, the metrics and, of a finished run, the summary and if wanted the weights.

    Of one that is not finished the whole checkpoint is kept: ``minires train --resume TARGET --data-dir …`` goes on with it.
    """
    run, kept = RunFolder(source), RunFolder(target)
    target.mkdir(parents=True, exist_ok=True)
    checkpoint, finished = Checkpoint.load(run.last), run.summary.exists()
    recipe = Recipe.read(run.config).with_settings(**dict.fromkeys(MACHINES))
    kept.config.write_text(recipe.to_toml(checkpoint.info["minires_version"]), "utf-8")
    shutil.copyfile(run.metrics, kept.metrics)
    settings = {key: value for key, value in checkpoint.info["recipe"].items() if key not in MACHINES}
    kept.last.unlink(missing_ok=True)
    if not finished:
        replace(checkpoint, info=checkpoint.info | {"recipe": settings}).save(kept.last)
    else:
        shutil.copyfile(run.summary, kept.summary)
        if weights:
            info = {key: checkpoint.info[key] for key in ("num_classes", "epoch", "step", "minires_version", "target")}
            Checkpoint(checkpoint.model, info=info | {"recipe": settings}).save(kept.last)
    size = f"{kept.last.stat().st_size / 1e6:.1f} MB" if kept.last.exists() else "without weights"
    print(f"{target}: {size}" + ("" if finished else ", to go on with"))
