"""The part memory: what a training step needs, each peer in a process of its own, and whether a long run grows."""

from .cases import MINIRES, TORCH, Case
from .turns import Peer, PeerError, say


def run(settings):
    """Resident bytes before the first step, at the peak of a few, and along many steps of minires."""
    case = Case(*settings.cases[0]) if settings.cases else Case("resnet20", 128)
    found = {"model": case.model, "batch": case.batch, "peers": {}, "missing": {}}
    grown(worker(MINIRES, case, settings.threads), 1)  # compiles what is not in the cache: that is no step's memory
    for name in settings.among(TORCH):
        say(f"memory: {name}")
        try:
            found["peers"][name] = grown(worker(name, case, settings.threads), steps(settings))
        except PeerError as error:
            if name == MINIRES:
                raise
            found["missing"][name] = str(error)
    return {**found, "long": long_run(settings)}


def worker(name, case, threads):
    """A new process for training steps of a peer."""
    return Peer(name, {"job": "memory", "peer": name, "model": case.model, "batch": case.batch}, threads)


def steps(settings):
    """How many steps show the peak."""
    return 3 if settings.quick else 10


def grown(peer, steps):
    """{"before", "peak", "after"} in bytes: of so many first steps of a new process, which ends with them."""
    with peer:
        peer.start()
        return peer.ask(steps=steps)


def long_run(settings):
    """Resident bytes of minires after every so many steps."""
    model, batch, steps, every = ("resnet8", 16, 100, 10) if settings.quick else ("resnet20", 32, 1000, 50)
    say(f"memory: {steps} steps")
    with worker(MINIRES, Case(model, batch), settings.threads) as peer:
        peer.start()
        resident = [peer.ask(steps=every)["after"] for _ in range(steps // every)]
    return {"model": model, "batch": batch, "steps": steps, "every": every, "resident": resident}


PARTS = {"memory": run}
