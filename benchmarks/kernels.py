"""The part kernels: convolutions by themselves, in GFLOP/s, beside PyTorch's and the machine's peak in the same run."""

from .cases import CONVS, LAST, NCHW
from .turns import Peer, Table, say


def run(settings):
    """{"limits": …, "rows": [a convolution and one of its uses: by peer, the median seconds of each turn]}."""
    rounds, seconds = (1, 0.02) if settings.quick else (settings.rounds, 0.1)
    names = settings.among((NCHW, LAST))
    peers = [Peer(name, {"job": "kernels", "peer": name}, settings.threads) for name in names]
    with Table(peers) as table, Peer("the measure of the peak", {"job": "limits"}, settings.threads) as machine:
        table.start()
        machine.start()
        limits = [machine.ask()]
        rows = []
        for index, conv in enumerate(CONVS):
            for use in conv.uses:
                rows.append(row := {"conv": str(conv), "use": use, "flops": conv.flops, "bytes": conv.bytes})
                row["seconds"] = {name: [] for name in table.peers}
                for _ in range(rounds):
                    for name, typical in table.turn(conv=index, use=use, seconds=seconds).items():
                        row["seconds"][name].append([typical])
            say(f"kernels: {conv}")
            limits.append(machine.ask())  # clocks change with heat: the peak is the highest of the whole run
        return {
            "threads": settings.threads,
            "limits": {key: max(one[key] for one in limits) for key in ("gflops", "bandwidth")},
            "rows": rows,
            "missing": table.missing,
        }


PARTS = {"kernels": run}
