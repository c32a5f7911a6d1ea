"""The parts for cores that others want too: busy and two-trainings."""

from statistics import median

from . import busy
from .cases import ALL_THREADS, ALONE, FIRST, LATENCY, MINIRES, ONE_THREAD, RESNET20, SECOND
from .report import neighbours
from .steps import WARMUP, ask, facts_of, kept, peers_of, settings_of, task_of, warm_up
from .turns import Peer, PeerError, Table, in_turn, say

TURN = 1.0  # seconds at least: many time slices of the scheduler, so that it has shared out the cores
TRAINING = RESNET20
ONE_IMAGE = LATENCY[:1]


def alternating(settings):
    """The part busy: two cases each, alone and beside busy processes."""
    found = []
    for job, cases in (("train", TRAINING), ("inference", ONE_IMAGE)):
        for case in settings.choose(cases):
            found += alternate(job, case, settings)
    return {"cases": found}


def alternate(job, case, settings):
    """One case: its peers alone and beside the busy processes, in turn."""
    count = settings.busy or 1
    say(f"busy, {job}: {case}, {settings.threads} threads, {count} busy")
    found = {"job": job, "model": case.model, "batch": case.batch, "threads": settings.threads}
    peers = peers_of(job, case, settings.threads)
    if settings.threads > 1:
        peers.insert(1, Peer(ONE_THREAD, task_of(job, case, MINIRES), 1))
    with Table(peers) as table:
        try:
            with busy.processes(count) as run_or_rest:
                table.start()
                seconds = take_turns(table, settings_of(job, case, settings), count, run_or_rest)
        except PeerError as error:
            say(f"  {error}")
            return [{**found, "failed": str(error)}]
        found |= facts_of(table)
    cases = []
    for beside, times in seconds.items():
        say(f"  {neighbours(beside)}:")
        cases.append({**found, "busy": beside, "seconds": kept(job, case, times)})
    return cases


def take_turns(table, settings, count, run_or_rest):
    """{busy processes, 0 or count: {peer: [[seconds of a round's steps], …]}}.

    Each peer has a turn alone and one beside the busy processes, one after the other; which comes first changes by round.
    """
    least = 0 if settings.quick else TURN
    warm_up(table)
    seconds = {beside: {name: [] for name in table.peers} for beside in (0, count)}
    for r in range(settings.rounds):
        for name in list(table.peers):
            for beside in in_turn((0, count), r):
                if name in table.peers:  # it may have stopped in the turn before
                    run_or_rest(beside > 0)
                    ask(table, name, settings.steps + 1, seconds[beside], seconds=least)
        say(f"  round {r + 1} of {settings.rounds}")
    return {beside: {name: times[name] for name in table.peers} for beside, times in seconds.items()}


def two_trainings(settings):
    """The part two-trainings."""
    return {"job": "train", "cases": [compete(case, settings) for case in settings.choose(TRAINING)]}


def compete(case, settings):
    """One case: training processes of minires, one alone with half the threads, one with all, and two at once with all."""
    half = max(1, settings.threads // 2)
    say(f"two trainings: {case}, {settings.threads} threads each, against one on {half}")
    found = {"model": case.model, "batch": case.batch, "threads": settings.threads, "half": half}
    threads = {ALONE: half, **dict.fromkeys((ALL_THREADS, FIRST, SECOND), settings.threads)}
    peers = [Peer(name, task_of("train", case, MINIRES), n) for name, n in threads.items()]
    with Table(peers, needed=threads) as table:
        try:
            table.start()
            warm_up(table)
            seconds = {name: [] for name in threads}
            during = (settings.steps + 2) * median(table.turn_of(ALONE, steps=WARMUP))
            for r in range(settings.rounds):
                for names in in_turn(((ALONE,), (ALL_THREADS,), (FIRST, SECOND)), r):
                    for name, times in together(table, names, during).items():
                        seconds[name].append(times)
                say(f"  round {r + 1} of {settings.rounds}")
        except PeerError as error:
            say(f"  {error}")
            return {**found, "failed": str(error)}
        return {**found, **facts_of(table), "seconds": kept("train", case, seconds)}


def together(table, names, seconds):
    """{name: the seconds of each step} of peers that work at once, for so many seconds.

    The first step, after others had the caches, and the last, which may outlast the other peer's, are not counted.
    """
    for name in names:
        table.peers[name].send(steps=3, seconds=seconds)
    return {name: table.peers[name].answer()[1:-1] for name in names}


PARTS = {"busy": alternating, "two-trainings": two_trainings}
