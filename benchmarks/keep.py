"""Finished runs, as they are committed: what was computed and by which settings, without this machine's paths."""

import shutil
from pathlib import Path

from minires.training import Checkpoint, Recipe, RunFolder


def keep_run(source: Path, target: Path, weights: bool) -> None:
    """Copy the recipe, the metrics, the summary and, if wanted, the weights, without the optimizer's state."""
    run, kept = RunFolder(source), RunFolder(target)
    if not run.summary.exists():
        raise SystemExit(f"{source} is not finished: it has no summary.json")
    target.mkdir(parents=True, exist_ok=True)
    recipe = Recipe.read(run.config).with_settings(data_dir=None, threads=None)
    checkpoint = Checkpoint.load(run.last)
    info = {key: checkpoint.info[key] for key in ("num_classes", "epoch", "step", "minires_version", "target")}
    saved = {key: value for key, value in checkpoint.info["recipe"].items() if key not in ("data_dir", "threads")}
    kept.config.write_text(recipe.to_toml(info["minires_version"]), "utf-8")
    for file in (run.metrics, run.summary):
        shutil.copyfile(file, target / file.name)
    if weights:
        Checkpoint(checkpoint.model, info=info | {"recipe": saved}).save(kept.last)
        print(f"{target}: {kept.last.stat().st_size / 1e6:.1f} MB")
    else:
        print(f"{target}: without weights")
