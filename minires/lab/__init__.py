"""The lab: experiments that show, exactly, how gradients flow through residual networks.

Each is a function that takes a network and returns a result with its numbers, a verdict by a stated rule, ``plot()`` and
``to_json()``; ``minires lab NAME`` runs it on the command line.
"""

from .bugs import MISTAKES, Bugs, Mistake, Training, bugs, inject
from .construct import Construct, construct, with_identity_layers
from .cut import Cuts, cut
from .deepen import Deepen, deepen, deepened
from .degradation import Curve, Degradation, curves_in, degradation, training_curve
from .flow import Flow, flow, flow_networks
from .graph import Addition, Graph, Rule, record
from .identity import Identity, identity, identity_networks
from .landscape import Landscape, landscape
from .lesion import Lesion, lesion
from .paths import Paths, mean_path_length, paths
from .refine import Refine, refine
from .responses import Responses, responses
from .result import About, Result, Verdict
from .rules import ByLength, Cut, MeanLength, OnePath
from .shatter import Shatter, shatter
from .shortcuts import Shortcuts, shortcuts
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
    "Deepen",
    "Degradation",
    "Flow",
    "Graph",
    "Identity",
    "Landscape",
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
    "Shortcuts",
    "Spectrum",
    "Split",
    "Training",
    "Truncate",
    "Verdict",
    "bugs",
    "construct",
    "curves_in",
    "cut",
    "deepen",
    "deepened",
    "degradation",
    "flow",
    "flow_networks",
    "identity",
    "identity_networks",
    "inject",
    "landscape",
    "lesion",
    "mean_path_length",
    "paths",
    "record",
    "refine",
    "responses",
    "shatter",
    "shortcuts",
    "spectrum",
    "split",
    "training_curve",
    "truncate",
    "with_identity_layers",
]
