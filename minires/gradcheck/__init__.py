"""Gradients against finite differences: of functions (``gradcheck``) and of whole networks (``gradcheck_model``).

engine    the comparison, in float64, with a step chosen by a sweep
kinks     corners, told by the branches that operations take
locate    the first wrong module and operation
cases     a table with every operation, for ``minires gradcheck``
"""

from .function import gradcheck
from .model import gradcheck_model
from .results import Checked, Difference, GradcheckError, GradcheckResult

__all__ = ["Checked", "Difference", "GradcheckError", "GradcheckResult", "gradcheck", "gradcheck_model"]
