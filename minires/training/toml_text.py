"""The TOML text of recipes."""

import tomllib
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def read_text(path: Path | str) -> str:
    """The text of a file. Raises ConfigError for one that cannot be read."""
    try:
        return Path(path).read_text("utf-8-sig")  # editors of Windows begin a file with a byte order mark
    except OSError as error:
        raise ConfigError(
            f"cannot read {path} ({error.strerror}): a recipe is a TOML file, such as the config.toml of a run"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: a recipe is a TOML file, such as the config.toml of a run"
        ) from error


def parse_settings(text: str, source: str) -> dict[str, Any]:
    """The settings in TOML text, unchecked. source: its name in error messages. Raises ConfigError for what is not TOML."""
    try:
        settings = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an int of too many digits
        raise ConfigError(f"{source} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is not a recipe: its lists or tables are nested too deep") from error
    settings.pop("minires_version", None)
    return settings


def toml_value(value: Any) -> str:
    """A TOML value: a string, a boolean, a number or an array of these."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c for c in escaped) + '"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float):
        return repr(value)  # the shortest text that reads back to the same bits
    return str(value)
