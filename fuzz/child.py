"""One process that damages one target until its time is over: `python -m fuzz.child TARGET SECONDS SEED FOUND FOLDER`; `-` for TARGET repeats FOUND.

Coverage guides it where atheris is installed; elsewhere the mutations of this package have to find their way blindly. The address space
is limited to what the process has after a look at the sound files, and 200 MiB more, so a reader that allocates more ends in MemoryError.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import sys
import time
import traceback
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from fuzz import FINDINGS, OUTCOMES
from fuzz.mutations import mutated

try:
    import atheris
except ImportError:
    atheris = None


def _watched() -> AbstractContextManager[None]:
    """What is imported inside tells atheris its coverage."""
    return atheris.instrument_imports(include=["surgery"], enable_loader_override=False) if atheris else nullcontext()


with _watched():
    from fuzz.targets import TARGETS, Seed
    from fuzz.trial import MOST_SECONDS, TooSlow, try_out

_TOLD_EVERY = 20
_MOST_MEMORY = 200 << 20
_IMPORT_SECONDS = 60
_SLOWER_WHEN_WATCHED = 5
"""How much longer a trial may take under the instrumentation of atheris."""


class Hunt:
    """The trials of one target, in a folder of its own, and what they found."""

    def __init__(self, target: str, found: Path, folder: Path) -> None:
        self.target = TARGETS[target]
        self.found = found
        self.folder = folder
        self.outcomes: Counter[str] = Counter()
        self.findings: set[str] = set()
        self.seconds = float(_IMPORT_SECONDS)
        self._sound = [seed.files() for seed in self.target.seeds]
        for number, files in enumerate(self._sound):
            for name, data in files.items():
                path = self._place(number) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def _place(self, number: int) -> Path:
        return self.folder / f"seed{number}"

    def sound(self, number: int) -> bytes:
        """The file that is to be damaged, before it is."""
        return self._sound[number][self.target.seeds[number].damaged]

    def warm_up(self) -> None:
        """Try the sound files, which imports what readers need; then forbid to take long, and to allocate much more."""
        with _watched():
            for number in range(len(self.target.seeds)):
                self.trial(number, self.sound(number), False)
        self.seconds = MOST_SECONDS * (_SLOWER_WHEN_WATCHED if atheris else 1)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def trial(self, number: int, data: bytes, seal: bool) -> None:
        """Try one damaged file among the sound ones of its seed; what is found is saved once for each place in the code."""
        seed = self.target.seeds[number]
        if seal and self.target.sealed is not None:
            data = self.target.sealed(self.sound(number), data)
        place = self._place(number)
        (place / seed.damaged).write_bytes(data)
        try:
            outcome = try_out(str(place / seed.opened), self.folder / "out", self.seconds)
        except (Exception, TooSlow) as fault:
            outcome = "found"
            self._save(fault, seed, place)
        self.outcomes[outcome] += 1
        if self.outcomes.total() % _TOLD_EVERY == 0:  # atheris ends the process without another word
            (self.folder / OUTCOMES).write_text(json.dumps(self.outcomes))

    def _save(self, fault: BaseException, seed: Seed, place: Path) -> None:
        frames = [frame for frame in traceback.extract_tb(fault.__traceback__) if "/surgery/" in frame.filename] or traceback.extract_tb(
            fault.__traceback__
        )
        name = hashlib.sha256(f"{type(fault).__name__} {frames[-1].filename} {frames[-1].name}".encode()).hexdigest()[:8]
        if name in self.findings:
            return
        self.findings.add(name)
        folder = self.found / name
        shutil.copytree(place, folder, dirs_exist_ok=True)
        head = "".join(traceback.format_exception_only(fault)).strip()[:500]
        where = f"{frames[-1].filename}:{frames[-1].lineno} {frames[-1].name}"
        with (self.folder / FINDINGS).open("a") as findings:
            findings.write(f"{head}\n  in {where}\n  repeat: python -m fuzz --repeat {folder / seed.opened}\n")


def hunt(target: str, seconds: float, seed: int, found: Path, folder: Path) -> None:
    """Try damaged files in `folder` for so long; findings and the counts of outcomes are left in files there."""
    trials = Hunt(target, found, folder)
    trials.warm_up()
    if atheris:
        _guided(trials, seconds, seed)
    else:
        _blind(trials, seconds, random.Random(seed))


def _blind(trials: Hunt, seconds: float, chance: random.Random) -> None:
    sounds = [trials.sound(number) for number in range(len(trials.target.seeds))]
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        number = chance.randrange(len(sounds))
        trials.trial(number, mutated(sounds[number], chance, sounds), chance.random() < 0.8)


def _guided(trials: Hunt, seconds: float, seed: int) -> None:
    """Let atheris choose the damage. The first byte of its inputs tells the seed, and whether to seal."""
    corpus = trials.folder / "corpus"
    corpus.mkdir()
    seeds = len(trials.target.seeds)
    for number in range(seeds):
        (corpus / str(number)).write_bytes(bytes([2 * number]) + trials.sound(number))

    def one(data: bytes) -> None:
        if data:
            trials.trial(data[0] // 2 % seeds, data[1:], data[0] % 2 == 0)

    def damaged(data: bytes, largest: int, chance: int) -> bytes:
        random_ = random.Random(chance)
        if random_.random() < 0.5:
            return bytes(atheris.Mutate(data, largest))
        return (data[:1] + mutated(data[1:], random_, [trials.sound(data[0] // 2 % seeds)] if data else [b"x"]))[:largest]

    limits = [f"-max_total_time={seconds:g}", f"-seed={seed}", "-rss_limit_mb=0", "-timeout=60", "-verbosity=0", "-max_len=400000"]
    atheris.Setup(["fuzz", *limits, str(corpus)], one, custom_mutator=damaged)
    atheris.Fuzz()


if __name__ == "__main__":
    name, seconds, seed, found, folder = sys.argv[1:]
    if name == "-":
        print(try_out(found, Path(folder) / "out"))
    else:
        hunt(name, float(seconds), int(seed), Path(found), Path(folder))
