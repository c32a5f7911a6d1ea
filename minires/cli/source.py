"""The options by which a command is told how images are normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..data import Normalization


def normalization_of(normalize: str | None, mean: str | None, std: str | None) -> Normalization | None:
    """The normalisation of --normalize, or of --mean and --std; None without any. Raises ConfigError."""
    from ..data import Normalization

    if normalize is not None:
        if mean is not None or std is not None:
            raise ConfigError("--normalize names a mean and a std: leave --mean and --std out, or --normalize")
        return Normalization.named(normalize)
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise ConfigError(f"--mean and --std go together: give --{'mean' if mean is None else 'std'} too")
    return Normalization(numbers("--mean", mean), numbers("--std", std))


def numbers(name: str, text: str, example: str = "0.485,0.456,0.406") -> tuple[float, ...]:
    """ "0.5,0.75" → (0.5, 0.75). Raises ConfigError, which names the option."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{name} takes numbers with commas between them, such as {example}, not {text!r}") from None
