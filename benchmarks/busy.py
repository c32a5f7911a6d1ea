"""Busy processes beside the timed ones: each an endless loop of Python that touches no memory to speak of.

``python -m benchmarks.busy`` is one of them. It begins at rest, runs or rests as a line of its input says ({"busy": true}),
and answers each line with the seconds of CPU time that it has used. It ends with its input, which the system closes even
when the benchmark is killed.
"""

import json
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

from .turns import Peer

COMMAND = (sys.executable, "-m", "benchmarks.busy")


@contextmanager
def processes(count):
    """So many of them, which end with the context; it gives a function: True lets them run, False rest.

    The function returns the seconds of CPU time that each has used, and raises PeerError when one has stopped.
    """
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer("a busy process", command=list(COMMAND))) for _ in range(count)]
        for peer in peers:
            peer.start()
        yield lambda running: [peer.ask(busy=running)["seconds"] for peer in peers]


def main():
    running = threading.Event()
    threading.Thread(target=loop, args=(running,), daemon=True).start()
    print("{}", flush=True)
    for line in sys.stdin:
        if json.loads(line)["busy"]:
            running.set()
        else:
            running.clear()
        print(json.dumps({"seconds": time.process_time()}), flush=True)


def loop(running):
    while running.wait():
        while running.is_set():
            pass


if __name__ == "__main__":
    main()
