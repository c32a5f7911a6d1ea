"""The version is written down twice, once for pip."""

import re

from test_docs import ROOT

import minires as mr


def test_the_version_is_that_of_setup_cfg():
    found = re.search(r"^version = (.+)$", (ROOT / "setup.cfg").read_text("utf-8"), re.M)
    assert found
    assert mr.__version__ == found[1]
