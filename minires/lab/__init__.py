"""The lab: experiments that show, exactly, how gradients flow through residual networks.

Each is a function that takes a network and returns a result with its numbers, a verdict by a stated rule, ``plot()`` and
``to_json()``; ``minires lab NAME`` runs it on the command line.
"""

from .bugs import MISTAKES, Bugs, Mistake, Training, bugs, inject
from .construct import Construct, construct, deepened
from .cut import Cuts, cut
from .degradation import Curve, Degradation, curves_in, degradation, training_curve
from .flow import Flow, flow, flow_networks
from .graph import Addition, Graph, Rule, record
from .identity import Identity, identity, identity_networks
from .lesion import Lesion, lesion
from .paths import Paths, mean_path_length, paths
from .refine import Refine, refine
from .responses import Responses, responses
from .result import About, Result, Verdict
from .rules import ByLength, Cut, MeanLength, OnePath
from .shatter import Shatter, shatter
from .spectrum import Spectrum, spectrum
from .split import Split, split
from .truncate import Truncate, truncate

__all__ = [
    "MISTAKES",
    "About",
    "Addition",
    "Bugs",
    "ByLength",
    "Construct",
    "Curve",
    "Cut",
    "Cuts",
    "Degradation",
    "Flow",
    "Graph",
    "Identity",
    "Lesion",
    "MeanLength",
    "Mistake",
    "OnePath",
    "Paths",
    "Refine",
    "Responses",
    "Result",
    "Rule",
    "Shatter",
    "Spectrum",
    "Split",
    "Training",
    "Truncate",
    "Verdict",
    "bugs",
    "construct",
    "curves_in",
    "cut",
    "deepened",
    "degradation",
    "flow",
    "flow_networks",
    "identity",
    "identity_networks",
    "inject",
    "lesion",
    "mean_path_length",
    "paths",
    "record",
    "refine",
    "responses",
    "shatter",
    "spectrum",
    "split",
    "training_curve",
    "truncate",
]
