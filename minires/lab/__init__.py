"""The lab: experiments that show, exactly, how gradients flow through residual networks.

Each is a function that takes a network and returns a result with its numbers, a verdict by a stated rule, ``plot()`` and
``to_json()``; ``minires lab NAME`` runs it on the command line.
"""

from .experiments.bugs import MISTAKES, Bugs, Mistake, Training, bugs, inject
from .experiments.construct import Construct, construct, with_identity_layers
from .experiments.cut import Cuts, cut
from .experiments.deepen import Deepen, deepen, deepened
from .experiments.degradation import Curve, Degradation, curves_in, degradation, training_curve
from .experiments.flow import Flow, flow, flow_networks
from .experiments.identity import Identity, identity, identity_networks
from .experiments.landscape import Landscape, landscape
from .experiments.lesion import Lesion, lesion
from .experiments.paths import Paths, mean_path_length, paths
from .experiments.refine import Refine, refine
from .experiments.responses import Responses, responses
from .experiments.shatter import Shatter, shatter
from .experiments.shortcuts import Shortcuts, shortcuts
from .experiments.spectrum import Spectrum, spectrum
from .experiments.split import Split, split
from .experiments.truncate import Truncate, truncate
from .graph import Addition, Graph, Rule, record
from .inside import GradCam, feature_maps, first_filters, grad_cam
from .result import About, Result, Verdict
from .rules import ByLength, Cut, MeanLength, OnePath

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
    "GradCam",
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
    "feature_maps",
    "first_filters",
    "flow",
    "flow_networks",
    "grad_cam",
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
