"""What is committed under results/lab/ can be read, says what its numbers say, and names no path of a machine."""

import re

import numpy as np
import pytest

from benchmarks import lab
from minires.lab import networks
from minires.training import Checkpoint, Recipe, load_run, read_metrics

NETWORKS = sorted(path for path in (lab.RESULTS / "networks").iterdir() if path.is_dir())
RESULTS = [name for name in lab.RUNS if (lab.RESULTS / name).exists()]
MOST = 20e6  # bytes of all weights


def test_the_tables_of_the_page_are_those_of_the_results():
    assert lab.docs_page() == lab.PAGE.read_text("utf-8")


def test_nothing_is_there_that_no_command_makes():
    assert {path.name for path in NETWORKS} <= set(networks.NETWORKS)
    assert {path.name for path in lab.RESULTS.iterdir() if path.is_dir()} <= {"networks", *lab.RUNS}


@pytest.mark.parametrize("folder", NETWORKS, ids=lambda path: path.name)
def test_a_network(folder):
    assert Recipe.read(folder / "config.toml") == networks.recipe(folder.name)
    if folder.name not in lab.WITHOUT_WEIGHTS:
        _, model, _ = load_run(folder)
        assert not Checkpoint.load(folder / "last.safetensors").optimizer
        assert all(p.dtype == np.float32 for p in model.parameters())
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == list(range(1, 1 + networks.EPOCHS))


def test_the_networks_are_small():
    assert sum(path.stat().st_size for path in (lab.RESULTS / "networks").rglob("*.safetensors")) < MOST


@pytest.mark.parametrize("name", RESULTS)
def test_a_result(name):
    result = lab.result_of(name)
    page = (lab.RESULTS / name / "README.md").read_text("utf-8")
    word, because = result.verdict
    assert f"**{word[0].upper()}{word[1:]}**: {because}." in page
    assert f"`minires lab {lab.RUNS[name]}`" in page
    assert len(page.partition(lab.SHOWN)[2].split()) > 30, "a paragraph on what it shows is missing"
    assert (lab.RESULTS / name / "picture.png").stat().st_size > 5000
    assert not re.search(r'": "(/|~|[A-Z]:)', result.to_json())  # no path of a machine
