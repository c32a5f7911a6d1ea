"""The parts that time whole networks: train, inference, latency, avx2, one-thread, scaling."""

from dataclasses import replace
from statistics import median

from .cases import INFERENCE, JAX, LATENCY, RESNET20, SCALING, SLOW, TRAIN
from .report import milliseconds, typical
from .turns import Peer, PeerError, Table, in_turn, say

WARMUP = 3
AVX2 = {
    "minires": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""},
    "PyTorch": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}


def peers_of(job, case, threads, env=()):
    """All peers of a case, each a process that builds it."""
    env = dict(env)
    peers = []
    for name in case.peers:
        if name == JAX and (case.imagenet or not case.model.startswith("resnet")):
            continue  # written for the CIFAR ResNets of 2015 alone
        peers.append(Peer(name, task_of(job, case, name), threads, env.get(name.split()[0], {})))
    return peers


def task_of(job, case, name):
    """What the worker is told."""
    return {"job": job, "peer": name, "model": case.model, "batch": case.batch}


def measure(job, case, table, threads, settings, flip=False):
    """One case, the peers of its table in turn: a dict for the JSON file."""
    say(f"{job}: {case}, {threads} threads")
    found = {"model": case.model, "batch": case.batch, "threads": threads}
    with table:
        try:
            table.start()
            seconds = take_turns(table, settings_of(job, case, settings), flip)
        except PeerError as error:
            say(f"  {error}")
            return {**found, "failed": str(error)}
        found |= facts_of(table)
    return {**found, "seconds": kept(job, case, seconds)}


def facts_of(table):
    """What a table's peers said of themselves, and who is missing."""
    return {
        "parameters": table.peers[table.ours].facts["parameters"],
        "targets": {name: peer.facts["target"] for name, peer in table.peers.items()},
        "missing": table.missing,
    }


def is_brief(job, case):
    """Whether a step may take less than a millisecond, so that a turn takes many."""
    return job == "inference" and case.batch == 1


def settings_of(job, case, settings):
    """The settings with the number of steps in a turn of this case."""
    return replace(settings, steps=settings.many) if is_brief(job, case) else settings


def kept(job, case, seconds):
    """The seconds for the JSON file, without peers that had no turn; of a turn of many steps the median alone. Says them."""
    seconds = {name: rounds for name, rounds in seconds.items() if rounds}
    if is_brief(job, case):
        seconds = {name: [[median(times)] for times in rounds] for name, rounds in seconds.items()}
    for name in seconds:
        say(f"  {name}: {milliseconds(typical({'seconds': seconds}, name))} ms")
    return seconds


def warm_up(table):
    for name in list(table.peers):
        say(f"  warming up {name}")
        ask(table, name, 1 if name in SLOW else WARMUP)


def take_turns(table, settings, flip=False):
    """{peer: [[seconds of a round's steps], …]}. A turn's first step, after others had the caches, is not counted.

    With ``flip`` every other round goes through the peers from the last to the first.
    """
    warm_up(table)
    seconds = {name: [] for name in table.peers}
    for r in range(settings.rounds):
        for name in in_turn(list(table.peers), r if flip else 0):
            if name in SLOW:
                if r < 2:  # seconds a step: two are enough to see its size
                    ask(table, name, 1, seconds)
            else:
                ask(table, name, settings.steps + 1, seconds)
        say(f"  round {r + 1} of {settings.rounds}")
    return {name: seconds[name] for name in seconds if name in table.peers}


def ask(table, name, steps, times=None, **more):
    """One peer's turn; its seconds are added to ``times``. A peer that dies in it is left out from then on."""
    answer = table.turn_of(name, steps=steps, **more)
    if answer is not None and times is not None:
        times[name].append(answer[1:] if len(answer) > 1 else answer)


def part(job, cases, threads=None, env=()):
    """A part: a function of the settings."""

    def run(settings):
        chosen, n = settings.choose(cases), threads or settings.threads
        return {
            "job": job,
            "environment": {name: dict(variables) for name, variables in dict(env).items()},
            "cases": [measure(job, case, Table(peers_of(job, case, n, env)), n, settings) for case in chosen],
        }

    return run


def scaling(settings):
    """ResNet-20 on 1, 2, 4, … threads, and on all."""
    counts = [1]
    while 2 * counts[-1] < settings.threads:
        counts.append(2 * counts[-1])
    counts = sorted({*counts, settings.threads})
    return {
        "job": "train",
        "cases": [
            measure("train", case, Table(peers_of("train", case, n)), n, settings)
            for case in settings.choose(SCALING)
            for n in counts
        ],
    }


PARTS = {
    "train": part("train", TRAIN),
    "inference": part("inference", INFERENCE),
    "latency": part("inference", LATENCY),
    "avx2": part("train", RESNET20, env=AVX2),
    "one-thread": part("train", RESNET20, threads=1),
    "scaling": scaling,
}
