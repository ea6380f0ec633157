"""Writing a set of files into one folder, complete or not at all.

Serves apply and, through `recover`, every command that is about to look at a folder. New files are staged in the hidden
folder `FOLDER/.NAME.surgery`, which a lock holds for one run; no lock file is ever left. A set that needs several changes
of names has a journal in the staging folder: once that is on the device, the set is committed, and whoever finds it there
without a living owner rolls forward. A journal that came with a copied or unpacked folder is not obeyed: it tells which folder
it was written in. Each step can be done again. Knows what files are for only in that the last is the index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from os.path import dirname, join
from typing import Self

from surgery import files
from surgery.errors import ApplyError
from surgery.journal import JOURNAL, SUFFIX, Journal, is_plain

_PATIENCE = 0.5  # seconds until a lock counts as held by a run, and not by somebody who only cleans up
_COMMITTING = 10.0  # seconds given to another process that is past its commit point
_POLL = 0.02
_FLUSHERS = 4
_IDLE_FILES = 8  # a run may have many outputs, and a process often no more than 256 descriptors


class Staging:
    """A set of files being written into one folder; leaving the `with` without `commit` leaves the folder as it was.

    Names are plain (no separators). `create` and `write` may be called from any thread, for different files or ranges.
    """

    def __init__(self, folder: str, staged: str, lock: int, made: Sequence[str]) -> None:
        """Not called directly; see `open`."""
        self._folder = folder
        self._staged = staged
        self._lock = lock
        self._made = made
        self._decided = False
        self._descriptors = files.Descriptors[str](lambda name: files.open_for_writing(self.path(name)), _IDLE_FILES)

    @classmethod
    def open(cls, folder: str, name: str) -> Staging:
        """Start writing the output `name` of a folder, which is made where it is missing; no name means the folder itself.

        First finishes or removes what dead runs left in the folder.

        Raises:
            ApplyError: with code `locked` where another run writes this output; `foreign-journal`; `bad-name`; or the file system's refusal.
        """
        folder = folder or "."
        _refuse_odd_names([name] if name else [])
        recover(folder)
        clean(folder)
        lock, made = _hold(folder, name)
        return cls(folder, _staging_path(folder, name), lock, made)

    def path(self, name: str) -> str:
        """Where the staged file lies until the commit."""
        return join(self._staged, name)

    def create(self, name: str, nbytes: int = 0) -> None:
        """Stage a new file of `nbytes` zeros that take no space yet; writing beyond them makes it longer."""
        _refuse_odd_names([name])
        files.create_file(self.path(name), nbytes)

    def opened(self, name: str) -> AbstractContextManager[int]:
        """The descriptor of a staged file, to be used at explicit offsets inside the `with`; shared by threads."""
        return self._descriptors.lend(name)

    def write(self, name: str, start: int, data: bytes | memoryview) -> None:
        """Write bytes at an absolute offset of a staged file."""
        with self.opened(name) as descriptor:
            files.write_at(descriptor, start, data)

    def commit(
        self,
        names: Sequence[str],
        remove: Iterable[str] = (),
        replaces_index: Iterable[str] = (),
        last_look: Callable[[], None] = lambda: None,
    ) -> None:
        """Put the staged files in place of what the folder has under these names: all of them, whatever happens, or none.

        `names` has at least one file, its index last. `remove` are names that an older set left and this one does not use;
        `replaces_index` are indexes of that set under other names than the new one's. What is not there, or is
        itself written, is passed over. `last_look` is called when all is flushed, right before the commit point, and may raise.

        Raises:
            ApplyError: before the commit point nothing has changed; behind it the next `recover` goes on from there.
        """
        plan = Journal(list(names), *(self._unused(group, names) for group in (remove, replaces_index)))
        _refuse_odd_names([name for group in plan for name in group])
        self._refuse_folders(plan)
        self._flush(names)
        last_look()
        if len(names) == 1 and not plan.remove and not plan.replaces_index:
            files.rename(self.path(names[0]), join(self._folder, names[0]))
            files.fsync_folder(self._folder)
            files.remove_tree(self._staged)
        else:
            self._commit_by_journal(plan)
        self._decided = True

    def _unused(self, group: Iterable[str], names: Sequence[str]) -> list[str]:
        return [name for name in group if name not in names and files.exists(join(self._folder, name))]

    def _refuse_folders(self, plan: Journal) -> None:
        for name in (name for group in plan for name in group):
            path = join(self._folder, name)
            if files.is_folder(path):
                raise ApplyError(
                    f"{path} is a folder", code="folder-in-the-way", help="move it away, or save under another name", data={"path": path}
                )

    def _flush(self, names: Sequence[str]) -> None:
        self._descriptors.close()
        paths = [self.path(name) for name in names]
        if len(paths) == 1:
            files.fsync_file(paths[0])
        else:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(_FLUSHERS) as pool:
                list(pool.map(files.fsync_file, paths))
        for made in self._made:
            files.fsync_folder(dirname(made.rstrip("/")))

    def _commit_by_journal(self, plan: Journal) -> None:
        files.write_file(self.path(JOURNAL), plan.encode(files.identity(self._staged)), durable=True)
        files.fsync_folder(self._staged)
        files.fsync_folder(self._folder)
        self._decided = True
        try:
            _roll_forward(self._folder, self._staged, plan)
        except KeyboardInterrupt:
            _roll_forward(self._folder, self._staged, plan)
            raise
        except ApplyError as fault:
            fault.notes += (f"the new files are complete and stay in {self._staged} until they can be put in place",)
            fault.help = f"{fault.help or 'repair the cause'}; the next `surgery` command on this path then finishes the work"
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._descriptors.close()
        try:
            if not self._decided:
                _discard(self._staged)
                _remove_empty(self._made)
        finally:
            files.unlock(self._lock)


def recover(folder: str) -> list[str]:
    """Finish commits in a folder whose process died past the commit point; returns the paths of their indexes.

    Costs one listing where there is nothing to do. A living process that is committing is given ten seconds; one that still
    stages is left alone, and so is a journal written in another folder. A folder that cannot be read or changed is left as it is.

    Raises:
        ApplyError: a commit cannot be finished for another reason than missing permission.
    """
    folder = folder or "."
    finished = []
    for staged in files.own_folders(folder, ".", SUFFIX):
        with _where_permitted():
            if files.is_regular(join(staged, JOURNAL)):
                index = _settle(folder, staged, _wait_for_lock(staged, _COMMITTING), discard=False)
                finished += [index] if index else []
    return finished


def clean(folder: str) -> None:
    """Remove what dead runs staged in a folder and did not commit, as far as permissions allow. For writers only."""
    folder = folder or "."
    for staged in files.own_folders(folder, ".", SUFFIX):
        with _where_permitted():
            _settle(folder, staged, files.lock_folder(staged), discard=True)


@contextmanager
def _where_permitted() -> Iterator[None]:
    try:
        yield
    except ApplyError as error:
        if error.code not in ("read-only", "permission-denied"):
            raise


def _roll_forward(folder: str, staged: str, journal: Journal) -> None:
    index = journal.files[-1]
    for name in journal.replaces_index:
        files.unlink(join(folder, name))
    if files.is_regular(join(staged, index)):  # otherwise the one in the folder is the new one already
        files.unlink(join(folder, index))
    for name in journal.files:
        if files.is_regular(join(staged, name)):
            files.rename(join(staged, name), join(folder, name))
    for name in journal.remove:
        files.unlink(join(folder, name))
    files.fsync_folder(folder)
    _discard(staged)


def _discard(staged: str) -> None:
    """Remove a staging folder, its journal before all else: a journal beside half of its files would be rolled forward."""
    journal = join(staged, JOURNAL)
    if files.exists(journal):
        files.unlink(journal)
        files.fsync_folder(staged)
    files.remove_tree(staged)


def _settle(folder: str, staged: str, lock: int | None, *, discard: bool) -> str | None:
    """Roll a dead run forward, and return its index; without a journal, leave it or `discard` it. Gives the lock back.

    What was moved here from elsewhere stays: obeyed, its journal could remove any file of this folder, and discarded, it may be
    the only copy of what somebody saved.
    """
    if lock is None:
        return None
    try:
        found = Journal.read(staged)
        if found is None:
            if discard:
                _discard(staged)
            return None
        journal, own = found
        if not own:
            return None
        _roll_forward(folder, staged, journal)
        return join(folder, journal.files[-1])
    finally:
        files.unlock(lock)


def _hold(folder: str, name: str) -> tuple[int, list[str]]:
    """The lock of a staging folder that is ours from its making on, and the folders made above it, outermost first."""
    staged = _staging_path(folder, name)
    made: list[str] = []
    new = ""
    try:
        while True:
            *above, new = files.make_folder(staged) or [""]
            made += above
            lock = _wait_for_lock(staged, _PATIENCE)
            if lock is not None and new and files.is_empty(staged):  # others may have taken it, and died, in between
                return lock, made
            if lock is None and files.exists(staged):
                new = ""  # who holds it also removes it
                raise _locked(join(folder, name) if name else folder)
            if lock is not None and _is_foreign(staged):
                files.unlock(lock)
                raise _foreign(staged)
            _settle(folder, staged, lock, discard=True)
    except BaseException:
        _remove_empty([*made, new] if new else made)
        raise


def _locked(path: str) -> ApplyError:
    return ApplyError(f"another run is writing {path}", code="locked", help="wait for it to end, or save under another name", data={"path": path})


def _is_foreign(staged: str) -> bool:
    found = Journal.read(staged)
    return found is not None and not found[1]


def _foreign(staged: str) -> ApplyError:
    return ApplyError(
        f"{staged} is not of a run in this folder",
        code="foreign-journal",
        notes=["it holds a save that was cut short elsewhere, and came here by a copy, a backup or an archive"],
        help="take out what you need, then remove it; or save under another name",
        data={"path": staged},
    )


def leftover_bytes(folder: str) -> int:
    """Bytes that the next writer frees in a folder: what dead runs staged and did not commit."""
    dead = 0
    for staged in files.own_folders(folder or ".", ".", SUFFIX):
        with _where_permitted():
            lock = files.lock_folder(staged)
            if lock is not None:
                dead += 0 if _is_foreign(staged) else files.allocated_bytes(staged)
                files.unlock(lock)
    return dead


def _remove_empty(made: Sequence[str]) -> None:
    for folder in reversed(made):
        files.remove_folder(folder)


def _wait_for_lock(staged: str, seconds: float) -> int | None:
    """The lock of a staging folder; None where it is gone, or still held when the time is up."""
    deadline = time.monotonic() + seconds
    while (lock := files.lock_folder(staged)) is None and files.exists(staged) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return lock


def _staging_path(folder: str, name: str) -> str:
    return join(folder, staging_folder(name))


def staging_name(folder: str, path: str) -> str:
    """What the staging folder of the output `path` in `folder` is called after, so that runs for one path meet whatever files each makes.

    Empty where the output is the folder itself: else it would meet an output in the folder that is called as the folder is.
    """
    whole = path.rstrip("/")
    return "" if (whole or "/") == folder else whole.rpartition("/")[2]


def staging_folder(name: str) -> str:
    """The name of the hidden folder in which the output `name` is staged."""
    return f".{name}{SUFFIX}" if name else SUFFIX


def _refuse_odd_names(names: Iterable[str]) -> None:
    for name in names:
        if not is_plain(name):
            raise ApplyError(f"{name!r} cannot be the name of an output file", code="bad-name", help="save under another name", data={"name": name})
