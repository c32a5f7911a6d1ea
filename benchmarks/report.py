"""Medians, ratios and the Markdown tables of README, from the results of a run (see ``python -m benchmarks --from``)."""

from statistics import median

from .cases import ALL_THREADS, ALONE, FIRST, MINIRES, NCNN, NEW, OLD, ONNX, OPENVINO, SECOND, TORCH, USES
from .interval import LEAST_TURNS, ratio_interval


def table(head, rows):
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def flat(rounds):
    """The times of all rounds."""
    return [second for one in rounds for second in one]


def typical(case, name):
    """The median of a peer's times, over all rounds."""
    return median(flat(case["seconds"][name]))


def is_torch(name):
    return name.startswith("PyTorch")


def is_other(name):
    """Whether it is not minires, as "minires, 1 thread" still is."""
    return name.partition(",")[0] != MINIRES


def rivals(case, wanted=is_torch):
    """The peers that a predicate picks, fastest first."""
    names = [name for name, rounds in case["seconds"].items() if flat(rounds) and wanted(name)]
    return sorted(names, key=lambda name: typical(case, name))


def ratio(case, name, ours=MINIRES):
    """How many times as fast as a peer ours is: its median over our median."""
    return typical(case, name) / typical(case, ours)


def spread(case, name, ours=MINIRES):
    """The least and the greatest such ratio of a single round: how much the machine's mood matters."""
    ratios = [
        median(theirs) / median(mine)
        for theirs, mine in zip(case["seconds"][name], case["seconds"][ours])
        if theirs and mine
    ]
    return min(ratios), max(ratios)


def times(value):
    """1.234 → 1.23 ×."""
    return f"{value:.2f} ×"


def milliseconds(seconds):
    """Three digits, or all before the point."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def count(threads):
    return f"{threads} thread" + ("s" if threads > 1 else "")


def neighbours(busy):
    """0 → alone, 1 → beside 1 busy process."""
    return f"beside {busy} busy process" + ("es" if busy > 1 else "") if busy else "alone"


def title(case):
    text = f"{case['model']}, batch {case['batch']}, {count(case['threads'])}"
    return f"{text}, {neighbours(case['busy'])}" if "busy" in case else text


def work(result):
    """What a result's steps are."""
    return "inference" if result["job"] == "inference" else "training step"


def failures(result):
    """A line a case that did not run."""
    return [f"- {title(case)}: {case['failed']}" for case in result["cases"] if "failed" in case]


def steps(result):
    """The parts that time steps: a row a case, milliseconds by peer; sentences; who is missing."""
    cases = [case for case in result["cases"] if "failed" not in case]
    names = list(dict.fromkeys(name for case in cases for name in case["seconds"]))
    names = [MINIRES, *(name for name in names if name != MINIRES)]
    wanted, best_of = (is_other, "the best of them") if work(result) == "inference" else (is_torch, "PyTorch's best")
    rows = []
    for case in cases:
        cells = [milliseconds(typical(case, name)) if flat(case["seconds"].get(name, [])) else "–" for name in names]
        best = rivals(case, wanted)
        rows.append([title(case), f"**{cells[0]}**", *cells[1:], f"**{times(ratio(case, best[0]))}**" if best else "–"])
    head = [f"{work(result)}, ms (medians)", *names, f"against {best_of}"]
    sentences = [f"- {title(case)}: {sentence}" for case in cases for sentence in conclusions(case)]
    for name, variables in result.get("environment", {}).items():
        used = dict.fromkeys(t for case in cases for peer, t in case["targets"].items() if peer.split()[0] == name)
        given = " ".join(f"{key}={value}" for key, value in variables.items())
        sentences.append(f"- {name}: `{given}`, which makes it {', '.join(used)}")
    sentences += failures(result)
    return "\n\n".join(filter(None, [rows and table(head, rows), "\n".join(sentences)]))


def conclusions(case):
    """What a case says, in words."""
    torch = rivals(case)
    if torch:
        best, slowest = torch[0], torch[-1]
        least, most = spread(case, best)
        yield (
            f"minires is {times(ratio(case, best))} as fast as PyTorch's best mode ({mode(best)}; by round "
            f"{least:.2f}–{most:.2f})"
            + (f", {times(ratio(case, slowest))} as fast as its slowest ({mode(slowest)})" if slowest != best else "")
        )
    engines = [name for name in (ONNX, OPENVINO, NCNN) if name in case["seconds"]]
    if engines and torch:
        best = rivals(case, lambda name: is_torch(name) or name in engines)[0]
        *first, last = ["PyTorch", *engines]
        yield f"minires is {times(ratio(case, best))} as fast as the fastest of {', '.join(first)} and {last} ({best})"
    yield from case["missing"].values()


def mode(name):
    return name.removeprefix("PyTorch ")


def recipe(result):
    """A row a peer, or stage of ours: seconds a step, the steps of its schedule, minutes, and how many times ours in all."""
    whole = {name: typical(result, name) * result["schedules"][name]["steps"] for name in result["seconds"]}
    ours = sum(seconds for name, seconds in whole.items() if not is_other(name))
    rows = []
    for name, schedule in result["schedules"].items():
        step = f"{typical(result, name):.2f} s × {schedule['steps']}"
        ratio = f"**{times(whole[name] / ours)}**" if is_other(name) else "–"
        rows.append([name, schedule["what"], f"{schedule['batch']:,}", step, f"{whole[name] / 60:.1f}", ratio])
    head = [f"training, {count(result['threads'])}", "what", "batch", "steps", "minutes", f"of {MINIRES}'s time"]
    missing = "\n".join(f"- {reason}" for reason in result["missing"].values())
    return "\n\n".join(filter(None, [table(head, rows), missing]))


def scaling(result):
    """Milliseconds and speed-up over one thread, by number of threads."""
    cases = [case for case in result["cases"] if "failed" not in case]
    rows = []
    for case in cases:
        best = rivals(case)
        one = next(
            (c for c in cases if c["threads"] == 1 and (c["model"], c["batch"]) == (case["model"], case["batch"])), None
        )
        gain = times(typical(one, MINIRES) / typical(case, MINIRES)) if one else "–"
        row = [title(case), milliseconds(typical(case, MINIRES)), gain]
        if best:
            their_one = rivals(one)[0] if one and rivals(one) else None
            their_gain = times(typical(one, their_one) / typical(case, best[0])) if their_one else "–"
            row += [
                f"{milliseconds(typical(case, best[0]))} ({mode(best[0])})",
                their_gain,
                times(ratio(case, best[0])),
            ]
        rows.append(row + ["–"] * (6 - len(row)))
    head = ["training step", "minires, ms", "over one thread", "PyTorch's best, ms", "over one thread", "ratio"]
    return "\n\n".join([table(head, rows), *failures(result)])


def busy(result):
    """The part busy: for training steps and for inference, the table of their times and what a busy process does to them."""
    blocks = []
    for job in dict.fromkeys(case["job"] for case in result["cases"]):
        cases = [case for case in result["cases"] if case["job"] == job]
        blocks += [steps({"job": job, "cases": cases}), slowdown([case for case in cases if "failed" not in case])]
    return "\n\n".join(filter(None, blocks))


def slowdown(cases):
    """A row a case beside busy processes: each peer's time over its time alone, and the least and greatest by round."""
    alone = {(case["model"], case["batch"]): case for case in cases if not case["busy"]}
    names = list(dict.fromkeys(name for case in cases for name in case["seconds"]))
    rows = []
    for case in cases:
        if case["busy"]:
            own = alone[case["model"], case["batch"]]["seconds"]
            both = {name: {"seconds": {"busy": case["seconds"][name], ALONE: own[name]}} for name in case["seconds"]}
            rows.append([title(case), *(against_alone(both[name], "busy") if name in both else "–" for name in names)])
    return rows and table(["time beside busy processes / time alone", *names], rows)


def against_alone(case, name):
    """The time over that of ``ALONE``, and the least and greatest by round."""
    return "{} ({:.2f}–{:.2f})".format(times(ratio(case, name, ALONE)), *spread(case, name, ALONE))


def two_trainings(result):
    """The part two-trainings: a row a case, milliseconds, and each training's time over that of one alone."""
    rows = []
    for case in result["cases"]:
        if "failed" not in case:
            ms = [milliseconds(typical(case, name)) for name in (ALONE, ALL_THREADS, FIRST, SECOND)]
            rows.append(
                [title(case), count(case["half"]), *ms, *(against_alone(case, name) for name in (FIRST, SECOND))]
            )
    names = ["one alone on", ALONE, ALL_THREADS, FIRST, SECOND, f"{FIRST} / alone", f"{SECOND} / alone"]
    head = ["training step, ms (medians)", *names]
    return "\n\n".join(filter(None, [rows and table(head, rows), "\n".join(failures(result))]))


def gflops(row, name=None):
    """A peer's GFLOP/s on a kernel (the median call); without a name, that of PyTorch's best mode, or None."""
    if name is None:
        names = rivals(row)
        return gflops(row, names[0]) if names else None
    return row["flops"] / typical(row, name) / 1e9


def kernels(result):
    """A row a convolution: GFLOP/s, share of the peak, and how many times PyTorch's best."""
    peak = result["limits"]["gflops"]
    by_conv = {}
    for row in result["rows"]:
        ours, theirs = gflops(row, MINIRES), gflops(row)
        cell = f"{ours:.0f} · {100 * ours / peak:.0f} %" + (f" · {times(ours / theirs)}" if theirs else "")
        by_conv.setdefault(row["conv"], {})[row["use"]] = cell
    rows = [[conv, *(cells.get(use, "–") for use in USES)] for conv, cells in by_conv.items()]
    text = (
        f"GFLOP/s of minires · share of the peak · against PyTorch's best mode; {count(result['threads'])}. Measured in the "
        f"same run: {peak:.0f} GFLOP/s of fused multiply-adds, {result['limits']['bandwidth']:.1f} GB/s. FLOPs are counted "
        "nominally, taps on padding included, so a kernel that needs fewer of them may pass 100 %."
    )
    missing = [f"- {reason}" for reason in result["missing"].values()]
    return "\n\n".join([text, table(["convolution", *USES], rows), *missing])


def memory(result):
    """Peak less what was resident before the first step, and the long run."""
    grown = {name: row["peak"] - row["before"] for name, row in result["peers"].items()}
    torch = sorted((name for name in grown if name in TORCH), key=grown.get)
    rows = [
        [name, f"{row['before'] / 2**20:.0f}", f"{row['peak'] / 2**20:.0f}", f"{grown[name] / 2**20:.0f}",
         times(grown[MINIRES] / grown[name])]
        for name, row in result["peers"].items()
    ]  # fmt: skip
    head = [f"{result['model']}, batch {result['batch']}: resident MB", "before the first step", "peak", "difference"]
    parts = [table([*head, "minires' share of it"], rows)]
    if torch:
        leanest = torch[0]
        parts.append(
            f"- minires takes {times(grown[MINIRES] / grown[leanest])} the memory of PyTorch's leanest mode "
            f"({mode(leanest)}); what a first step loads and compiles counts on both sides"
        )
    long = result["long"]
    first, last = long["resident"][0], long["resident"][-1]
    parts.append(
        f"- {long['steps']:,} steps ({long['model']}, batch {long['batch']}): resident {first / 2**20:.0f} MB after the "
        f"first {long['every']}, {last / 2**20:.0f} MB at the end, {max(long['resident']) / 2**20:.0f} MB at most"
    )
    parts += [f"- {reason}" for reason in result["missing"].values()]
    return "\n\n".join([parts[0], "\n".join(parts[1:])])


def startup(result):
    rows = [
        [what, f"{median(values):.2f}", f"{min(values):.2f}", len(values)] for what, values in result["rows"].items()
    ]
    return table(["what", "seconds (median)", "least", "processes"], rows)


def against(result):
    """Two checkouts' steps: a row a case, milliseconds, ratio and interval; what follows from them, in sentences."""
    rows, sentences = [], []
    for case in result["cases"]:
        if "failed" not in case:
            value, interval = compared(case)
            ms = [milliseconds(typical(case, name)) for name in (NEW, OLD)]
            rows.append([title(case), *ms, f"{value:.3f}", bounds(interval) if interval else "–"])
            sentences.append(f"- {title(case)}: {verdict(case)}")
    head = [f"{work(result)}, ms (medians)", NEW, OLD, f"{NEW} / {OLD}", "95 % interval"]
    return "\n\n".join(filter(None, [rows and table(head, rows), "\n".join(sentences + failures(result))]))


def compared(case):
    """Median time of the new checkout over that of the old, and the interval of this ratio or None."""
    return ratio(case, NEW, ours=OLD), ratio_interval(case["seconds"][NEW], case["seconds"][OLD])


def bounds(interval):
    return "{:.3f}–{:.3f}".format(*interval)


def verdict(case):
    """What follows from a comparison: a gain or a loss only where the interval leaves out 1."""
    value, interval = compared(case)
    if interval is None:
        return f"too few turns for an interval ({len(case['seconds'][NEW])}; it takes {LEAST_TURNS})"
    if interval[0] <= 1 <= interval[1]:
        return "no difference shown: the interval contains 1"
    return f"{NEW} takes {100 * abs(value - 1):.1f} % {'less' if value < 1 else 'more'} time than {OLD}"


def against_memory(result):
    """Two checkouts' memory: a row a case, medians over the processes of what the steps added."""
    rows = []
    for case in result["cases"]:
        if "failed" in case:
            continue
        added = {name: [one["peak"] - one["before"] for one in ran] for name, ran in case["processes"].items()}
        new, old = added[NEW], added[OLD]
        cells = [
            f"{median(values) / 2**20:.0f} ({min(values) / 2**20:.0f}–{max(values) / 2**20:.0f})"
            for values in (new, old)
        ]
        rows.append([title(case), *cells, f"{median(new) / median(old):.3f}", len(new)])
    head = ["peak less before the first step, MB: median (least–most)", NEW, OLD, f"{NEW} / {OLD}", "processes of each"]
    return "\n\n".join(filter(None, [rows and table(head, rows), "\n".join(failures(result))]))


def environment(facts):
    """The machine and the versions, a line each."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


RENDERERS = {
    "train": ("Training step", steps),
    "inference": ("Inference", steps),
    "latency": ("Inference of one image", steps),
    "busy": ("A busy process beside them", busy),
    "two-trainings": ("Two trainings at once", two_trainings),
    "avx2": ("Training step, both held to AVX2", steps),
    "one-thread": ("Training step on one thread", steps),
    "scaling": ("Threads", scaling),
    "recipe": ("A whole training", recipe),
    "kernels": ("Convolutions", kernels),
    "memory": ("Memory of a training step", memory),
    "startup": ("Beginning", startup),
    "against train": ("Training step, new against old", against),
    "against inference": ("Inference, new against old", against),
    "against memory": ("Memory of a training step, new against old", against_memory),
}


def section(part, record):
    """A part's heading and tables."""
    heading, render = RENDERERS[part]
    if record.get("busy"):
        heading += f", {neighbours(record['busy'])}"
    return f"### {heading}\n\n" + (record["failed"] if "failed" in record else render(record["result"]))


def document(records):
    """All parts of a file's records; an environment is printed where it differs from the one before."""
    blocks, before = [], None
    for part in RENDERERS:
        if part in records:
            record = records[part]
            if record["environment"] != before:
                before = record["environment"]
                blocks.append(environment(before))
            blocks.append(section(part, record))
    return "\n\n".join(blocks)
