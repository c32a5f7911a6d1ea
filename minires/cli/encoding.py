"""Output whose encoding lacks some of the characters that minires prints, such as ASCII or Windows' cp1252."""

import codecs
import sys

HANDLER = "minires-readable"  # the name under which codecs know the error handler
READABLE = {
    "…": "...", "–": "-", "—": "-", "−": "-", "‑": "-", "‐": "-", "×": "x", "·": ".", "÷": "/", "±": "+-", "∗": "*",
    "→": "->", "←": "<-", "►": ">", "◄": "<", "▼": "v", "▲": "^", "≤": "<=", "≥": ">=", "≈": "~", "∝": "~",
    "✓": "+", "✗": "x", "○": "o", "●": "*", "•": "*", "❱": ">", "′": "'", "‘": "'", "’": "'", "“": '"', "”": '"',
    "²": "^2", "⁻": "^-", "ˣ": "^x", "ᵀ": "^T", "₀": "0", "₁": "1", "₂": "2", "√": "sqrt ", "∞": "inf", "°": " deg",
    "∂": "d", "Σ": "sum ", "β": "beta", "γ": "gamma", "ε": "eps", "η": "eta", "λ": "lambda", "μ": "mu", "π": "pi",
    "σ": "sigma", "§": "section ", "\xa0": " ", "\u202f": " ", "\u2009": " ",
}  # fmt: skip


def make_encodable() -> None:
    """Let standard output and standard error replace what their encoding lacks, instead of raising UnicodeEncodeError."""
    codecs.register_error(HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # neither None (no console) nor an object that a caller has put there
            stream.reconfigure(errors=HANDLER)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """The error handler: readable ASCII for the characters that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_readable, error.object[error.start : error.end])), error.end


def _readable(character: str) -> str:
    """ASCII for one character: ``?`` when there is nothing better.

    >>> "".join(map(_readable, "×→…━│└é"))
    'x->...-|+?'
    """
    if "\ud800" <= character <= "\udfff":  # a byte of a file name that is not UTF-8
        return ascii(character)[1:-1]
    if "─" <= character <= "╿":  # the block of box drawings
        return "-" if character in "─━┄┅┈┉═╌╍╴╶╸╺╼╾" else "|" if character in "│┃┆┇┊┋║╎╏╵╷╹╻╽╿" else "+"
    if "▀" <= character <= "▟":  # the block of blocks
        return "#"
    return "*" if "⠀" <= character <= "⣿" else READABLE.get(character, "?")  # Braille: spinners
