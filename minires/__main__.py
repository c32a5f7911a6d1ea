"""``python -m minires`` is the command ``minires``.

Python puts the current folder on the search path of ``python -m``; it is taken off before anything else is imported, so that
a file there with the name of a library, such as numba.py, is not run. ``python -P -m minires`` never puts it there.
"""

import os
import sys

if not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]

from minires.cli import main

if __name__ == "__main__":
    main()
