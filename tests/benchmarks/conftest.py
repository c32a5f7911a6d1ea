"""benchmarks/ is part of the checkout, not of the package: it is found at the root."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
