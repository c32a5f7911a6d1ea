"""The parts that time whole networks: train, inference, avx2, one-thread, scaling."""

from .cases import INFERENCE, JAX, RESNET20, SCALING, SLOW, TRAIN
from .report import milliseconds, typical
from .turns import Peer, PeerError, Table, in_turn, say

WARMUP = 3
AVX2 = {
    "minires": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""},
    "PyTorch": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}


def table_of(job, case, threads, env=()):
    """All peers of a case, each a process that builds it."""
    env = dict(env)
    peers = []
    for name in case.peers:
        if name == JAX and (case.imagenet or not case.model.startswith("resnet")):
            continue  # written for the CIFAR ResNets of 2015 alone
        task = {"job": job, "peer": name, "model": case.model, "batch": case.batch}
        peers.append(Peer(name, task, threads, env.get(name.split()[0], {})))
    return Table(peers)


def measure(job, case, table, threads, settings, flip=False):
    """One case, the peers of its table in turn: a dict for the JSON file."""
    say(f"{job}: {case}, {threads} threads")
    found = {"model": case.model, "batch": case.batch, "threads": threads}
    with table:
        try:
            table.start()
            seconds = take_turns(table, settings, flip)
        except PeerError as error:
            say(f"  {error}")
            return {**found, "failed": str(error)}
        found["parameters"] = table.peers[table.ours].facts["parameters"]
        found["targets"] = {name: peer.facts["target"] for name, peer in table.peers.items()}
        found["missing"] = table.missing
    for name, rounds in seconds.items():
        if rounds:
            say(f"  {name}: {milliseconds(typical({'seconds': seconds}, name))} ms")
    return {**found, "seconds": {name: rounds for name, rounds in seconds.items() if rounds}}


def take_turns(table, settings, flip=False):
    """{peer: [[seconds of a round's steps], …]}. A turn's first step, after others had the caches, is not counted.

    With ``flip`` every other round goes through the peers from the last to the first.
    """
    for name in list(table.peers):
        say(f"  warming up {name}")
        ask(table, name, 1 if name in SLOW else WARMUP)
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


def ask(table, name, steps, seconds=None):
    """One peer's turn; its times are added to ``seconds``. A peer that dies in it is left out from then on."""
    answer = table.turn_of(name, steps=steps)
    if answer is not None and seconds is not None:
        seconds[name].append(answer[1:] if len(answer) > 1 else answer)


def part(job, cases, threads=None, env=()):
    """A part: a function of the settings."""

    def run(settings):
        chosen, n = settings.choose(cases), threads or settings.threads
        return {
            "job": job,
            "environment": {name: dict(variables) for name, variables in dict(env).items()},
            "cases": [measure(job, case, table_of(job, case, n, env), n, settings) for case in chosen],
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
            measure("train", case, table_of("train", case, n), n, settings)
            for case in settings.choose(SCALING)
            for n in counts
        ],
    }


PARTS = {
    "train": part("train", TRAIN),
    "inference": part("inference", INFERENCE),
    "avx2": part("train", RESNET20, env=AVX2),
    "one-thread": part("train", RESNET20, threads=1),
    "scaling": scaling,
}
