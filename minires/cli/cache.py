"""``minires cache``: look at the compiled kernels on disk, delete them."""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .errors import Debug

app = typer.Typer(
    help="Look at the compiled kernels on disk, or delete them.\n\n`minires cache info` says where they are.\n\n"
    "`minires cache clear` deletes them; `minires warmup` compiles them again.",
    rich_markup_mode="markdown",
)


@app.callback(invoke_without_command=True)
def cache(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def info(debug: Debug = False) -> int:
    """Say where compiled kernels are kept, and whether they are all there, whole, and safe from other users.

    Exit code 1 when a file is damaged or a folder is not trusted: minires does not use those, and compiles again.

    `minires cache info`

    `MINIRES_CACHE_DIR=/shared/minires minires cache info` looks at another folder
    """
    from ..kernels.runtime import jit, kernel_files, precompile, target
    from . import display

    folders = jit.FOLDERS
    console = display.console()
    damaged = {folder: _damaged(folder) for folder in folders.reading}
    rows = [("folder", str(folders.folder or "none: kernels are compiled again in every process"))]
    rows += [("read-only", str(folders.shared))] if folders.shared is not None else []
    rows += [("not trusted", said) for said in folders.untrusted]
    rows += [("not writable", said) for said in folders.unwritable]
    rows += [("kernels", _count(folder)) for folder in folders.reading]
    rows += [("damaged", f"{folder / name} {reason}") for folder in damaged for name, reason in damaged[folder]]
    whole = precompile.complete() and any(map(kernel_files.names, damaged)) and not any(damaged.values())
    rows.append(("complete", "yes" if whole else "no: minires warmup compiles what is missing"))
    rows.append(("versions", f"{jit.VERSIONS}, for {target.CPU_NAME} ({target.KIND})"))
    others = [folder for folder in _all_folders() if folder not in folders.reading]
    if others:
        size = sum(_size(folder) for folder in others)
        count = f"{len(others)} folder{'s' * (len(others) > 1)} of other versions"
        rows.append(("others", f"{count}, {size / 1e6:.1f} MB: minires cache clear deletes all"))
    console.print(display.pairs(rows))
    return 1 if folders.untrusted or any(damaged.values()) else 0


@app.command()
def clear(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    debug: Debug = False,
) -> int:
    """Delete the compiled kernels of all versions of minires. Data sets and runs are kept.

    Training compiles kernels again when it needs them.

    `minires cache clear`

    `minires cache clear --yes` does not ask
    """
    from . import display

    console = display.console()
    folders = _all_folders()
    if not folders:
        console.print("there are no compiled kernels to delete")
        return 0
    size = sum(map(_size, folders))
    what = f"{len(folders)} folder{'s' * (len(folders) > 1)} with compiled kernels, {size / 1e6:.1f} MB"
    console.print(display.pairs([("folder", str(folder)) for folder in folders]))
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"{what} would be deleted, and there is no terminal to ask in: add --yes")
        if not typer.confirm(f"Delete {what}?"):
            console.print("nothing is deleted")
            return 0
    for folder in folders:
        shutil.rmtree(folder)  # which deletes links, and not what they lead to
    console.print(f"deleted {what}")
    return 0


def _all_folders() -> list[Path]:
    """The folders with compiled kernels, of all versions, beside the one in use; no links, and none of other users'."""
    from ..kernels.runtime import cache_folder, jit

    if jit.FOLDERS.folder is None:
        return []
    beside = sorted(jit.FOLDERS.folder.parent.iterdir())
    return [path for path in beside if cache_folder.NAME.fullmatch(path.name) and _own(path)]


def _own(folder: Path) -> bool:
    from ..kernels.runtime import trust

    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and trust.stranger(status) is None


def _damaged(folder: Path) -> list[tuple[str, str]]:
    """(name, reason) of the files that minires does not run."""
    from ..kernels.runtime import kernel_files

    found = []
    for name in sorted(kernel_files.names(folder)):
        try:
            kernel_files.read(folder / name)
        except kernel_files.RejectedFile as error:
            found.append((name, str(error)))
    return found


def _count(folder: Path) -> str:
    from ..kernels.runtime import kernel_files

    return f"{len(kernel_files.names(folder))}, {_size(folder) / 1e6:.1f} MB"


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, those of links not counted."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
