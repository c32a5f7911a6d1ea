"""Compare gradients with finite differences: of functions (``gradcheck``) and of networks (``gradcheck_model``).

engine    the comparison, in float64, with a step chosen by a sweep
kinks     corners of a function, found by the branches that operations take
locate    the first wrong module and operation
cases     a table of all operations, for ``minires gradcheck``
"""

from .function import gradcheck
from .model import gradcheck_model
from .results import Checked, Difference, GradcheckError, GradcheckResult

__all__ = ["Checked", "Difference", "GradcheckError", "GradcheckResult", "gradcheck", "gradcheck_model"]
