"""minires against its peers, or against another checkout of itself, in one run: ``python -m benchmarks --help``.

turns.py    a peer is a process of its own, asked over a pipe       worker.py    what runs in that process
peers.py    training steps and inference of every peer              cases.py     what is measured: models and shapes
steps.py    the parts train, inference, latency, avx2, one-thread, scaling
sharing.py  the parts busy and two-trainings                        busy.py      a busy process
kernels.py  convolutions by themselves
memory.py   startup.py   machine.py   roofline.py                   report.py    medians, ratios, Markdown
against.py  the parts of --against TREE: two checkouts in turn      trees.py     a checkout and its processes
launch.py   starts a checkout's own worker                          interval.py  how sure a ratio is
"""
