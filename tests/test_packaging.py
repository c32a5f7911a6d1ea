"""What is installed: every package and every file that is no Python, listed in setup.cfg and found in a wheel."""

import configparser
import shutil
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"minires": "minires", "kernels": "minires.kernels"}  # in the checkout → the package it is installed as


def walk():
    """(package, path below ROOT) of every file that an installed minires should have."""
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield ".".join([package, *path.relative_to(ROOT / folder).parts[:-1]]), path.relative_to(ROOT)


@pytest.fixture(scope="module")
def listed():
    """setup.cfg, read."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_every_package_is_listed(listed):
    packages = {package for package, path in walk() if path.name == "__init__.py"}
    assert packages == set(listed["options"]["packages"].split())


def test_every_file_that_is_no_python_is_listed(listed):
    data = {path for _, path in walk() if path.suffix != ".py"}
    folders = {package: folder for folder, package in FOLDERS.items()}
    found = set()
    for package, patterns in listed["options.package_data"].items():
        top = max((p for p in folders if f"{package}.".startswith(f"{p}.")), key=len)
        folder = ROOT / folders[top] / Path(*package[len(top) + 1 :].split("."))
        for pattern in patterns.replace(",", " ").split():
            matches = {path.relative_to(ROOT) for path in folder.glob(pattern)}
            assert matches, f"{package} = {pattern} finds nothing"
            found |= matches
    assert found == data


def test_minires_says_that_it_is_typed():
    """PEP 561: without this file type checkers look at no annotation of an installed package."""
    assert resources.files("minires").joinpath("py.typed").is_file()


@pytest.mark.slow
def test_a_wheel_holds_all_of_it(tmp_path):
    source = tmp_path / "source"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, source]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("minires-*.whl")
    installed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert installed == {f"{package.replace('.', '/')}/{path.name}" for package, path in walk()}
