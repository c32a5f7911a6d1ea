"""How a run is to be made: threads, rounds, steps, and what to leave out."""

from dataclasses import dataclass, replace

from .cases import MINIRES


@dataclass(frozen=True)
class Settings:
    threads: int
    rounds: int = 5  # turns that each peer takes
    steps: int = 4  # timed steps of a turn
    many: int = 100  # the same of a prediction at batch 1, which may take less than a millisecond
    quick: bool = False
    cases: tuple = ()  # (model, batch) pairs in place of a part's own
    peers: tuple = ()  # names in place of a part's own
    busy: int = 0  # busy processes beside the timed ones
    trees: tuple = ()  # this checkout and the one it is compared with

    def choose(self, cases):
        """The cases of a part under these settings; quick takes the first alone. minires itself always runs."""
        if self.cases:
            models = {(case.model, case.batch): case for case in cases}
            cases = [models.get(pair, replace(cases[0], model=pair[0], batch=pair[1])) for pair in self.cases]
        elif self.quick:
            cases = cases[:1]
        return [replace(case, peers=self.among(case.peers)) for case in cases]

    def among(self, peers):
        """minires first, then those of the peers that are wanted."""
        return (MINIRES, *(name for name in peers if name != MINIRES and (not self.peers or name in self.peers)))
