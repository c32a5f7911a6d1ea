"""The parts of ``--against TREE``: this checkout and another in turn, the order flipped from one turn to the next."""

from . import memory, steps
from .cases import AGAINST, NEW, OLD
from .report import bounds, compared
from .turns import PeerError, Table, in_turn, say

NAME = "against {}"  # of a part, in the JSON file
JOBS = ("train", "inference", "memory")


def timed(job):
    """A part that times steps: a function of the settings."""

    def run(settings):
        return {"job": job, "cases": [compare(job, case, settings) for case in settings.choose(AGAINST)]}

    return run


def compare(job, case, settings):
    """One case: the seconds of both trees' steps, by turn."""
    peers = [tree.peer(job, case, settings.threads) for tree in settings.trees]
    table = Table(peers, needed=[peer.name for peer in peers])
    found = steps.measure(job, case, table, settings.threads, settings, flip=True)
    if "failed" not in found:
        value, interval = compared(found)
        say(f"  {NEW} / {OLD}: {value:.3f}" + (f" ({bounds(interval)})" if interval else ""))
    return found


def grown(settings):
    """What training steps add to a new process's resident memory: several processes of each tree, in turn."""
    return {"cases": [processes(case, settings) for case in settings.choose(AGAINST)]}


def processes(case, settings):
    """One case: {"before", "peak", "after"} in bytes, of every process of both trees."""
    say(f"memory: {case}, {settings.threads} threads")
    found = {"model": case.model, "batch": case.batch, "threads": settings.threads}

    def one(tree, count):
        return memory.grown(tree.peer("memory", case, settings.threads), count)

    by_tree = {tree.name: [] for tree in settings.trees}
    try:
        for tree in settings.trees:
            one(tree, 1)  # compiles what is not in the cache: that is no step's memory
        for turn in range(settings.rounds):
            for tree in in_turn(settings.trees, turn):
                by_tree[tree.name].append(one(tree, memory.steps(settings)))
            say(f"  round {turn + 1} of {settings.rounds}")
    except PeerError as error:
        say(f"  {error}")
        return {**found, "failed": str(error)}
    return {**found, "processes": by_tree}


PARTS = {
    NAME.format("train"): timed("train"),
    NAME.format("inference"): timed("inference"),
    NAME.format("memory"): grown,
}
ROUNDS = {NAME.format("train"): 20, NAME.format("inference"): 20, NAME.format("memory"): 3}  # unless --rounds says else
