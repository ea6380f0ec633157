"""Writing a set of files into one folder, complete or not at all.

Serves apply and, through `recover`, every command that is about to look at a folder. New files are staged in the hidden
folder `FOLDER/.NAME.surgery`, which a lock holds for one run; no lock file is ever left. A set that needs several changes
of names has a journal in the staging folder: once that is on the device, the set is committed, and whoever finds it there
without a living owner rolls forward. A journal that came with a copied or unpacked folder is not obeyed: it tells which folder
it was written in. Each step can be done again. Knows what files are for only in that the last is the index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from os.path import dirname, join
from threading import Lock
from typing import Self

from surgery import files
from surgery.errors import ApplyError
from surgery.journal import JOURNAL, SUFFIX, EditOf, Journal, is_plain

_PATIENCE = 0.5  # seconds until a lock counts as held by a run, and not by somebody who only cleans up
_COMMITTING = 10.0  # seconds given to another process that is past its commit point
_POLL = 0.02
_FLUSHERS = 4
LOG = ".tasks.surgery"
_STAYS = ".stays.surgery"
_IDLE_FILES = 8  # a run may have many outputs, and a process often no more than 256 descriptors


class Staging:
    """A set of files being written into one folder; leaving the `with` without `commit` leaves the folder as it was.

    Names are plain (no separators). `create` and `write` may be called from any thread, for different files or ranges.
    """

    def __init__(self, folder: str, staged: str, lock: int, made: Sequence[str], resume: bool) -> None:
        """Not called directly; see `open`."""
        self._resume = resume
        self._taken_over = resume  # until that is known
        self._folder = folder
        self._staged = staged
        self._lock = lock
        self._made = made
        self._decided = False
        self._logging = Lock()
        self._log: int | None = None
        self._descriptors = files.Descriptors[str](lambda name: files.open_for_writing(self.path(name)), _IDLE_FILES)

    @classmethod
    def open(cls, folder: str, name: str, *, resume: bool = False, beside: Iterable[str] = ()) -> Staging:
        """Start writing the output `name` of a folder, which is made where it is missing; no name means the folder itself.

        First finishes or removes what dead runs left in the folder. With `resume`, what one staged for this very output is taken
        over instead, what it staged for the outputs `beside` this one is left to these, and what this run stages stays if it fails.

        Raises:
            ApplyError: with code `locked` where another run writes this output; `foreign-journal`; `bad-name`; or the file system's refusal.
        """
        folder = folder or "."
        _refuse_odd_names([name] if name else [])
        recover(folder)
        staged = _staging_path(folder, name)
        clean(folder, but=[_staging_path(folder, each) for each in (name, *beside)] if resume else ())
        lock, made = _hold(folder, name, resume)
        staging = cls(folder, staged, lock, made, resume)
        try:
            staging._mark()
        except BaseException:
            staging.__exit__()
            raise
        return staging

    def _mark(self) -> None:
        if self._resume:
            self._taken_over = files.exists(self.path(LOG))
            if not files.exists(self.path(_STAYS)):
                files.create_file(self.path(_STAYS))

    def path(self, name: str) -> str:
        """Where the staged file lies until the commit."""
        return join(self._staged, name)

    def has(self, sizes: Mapping[str, int]) -> bool:
        """Whether files of these names and sizes are staged already, by the run that was taken over."""
        return all(files.is_regular(self.path(name)) and files.size_of(self.path(name)) == nbytes for name, nbytes in sizes.items())

    def keep_only(self, names: Collection[str]) -> None:
        """Remove all that the run that was taken over has staged besides these files; without any, its log too."""
        self._descriptors.close()  # of files that go, too: others will have their names
        for name in set(files.names_in(self._staged)) - {*names, _STAYS, LOG if names else _STAYS}:
            files.unlink(self.path(name))

    def log(self, line: bytes) -> None:
        """Put a line at the end of the log of this output, which is staged with it; any thread may."""
        with self._logging:
            if self._log is None:
                self._log = files.open_for_appending(self.path(LOG))
            files.append(self._log, line)

    def logged(self, most_bytes: int) -> bytes:
        """The log of the run that was taken over; empty where there is none, or one of more than `most_bytes`."""
        path = self.path(LOG)
        return (files.read_file(path, most_bytes) or b"") if files.is_regular(path) and files.size_of(path) <= most_bytes else b""

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
        manifest: str = "",
        edits: Sequence[EditOf] = (),
    ) -> None:
        """Put the staged files in place of what the folder has under these names: all of them, whatever happens, or none.

        `names` has at least one file, unless there are `edits`, its index last. `remove` are names that an older set left and this one does not use;
        `replaces_index` are indexes of that set under other names than the new one's. What is not there, or is
        itself written, is passed over. `last_look` is called when all is flushed, right before the commit point, and may raise.
        The `manifest` is put in place too where it is staged, else removed; it is the one file that may lag behind when the
        process dies, so that a single file is still exchanged in one step. `edits` change files where they lie, to which no other
        program may look meanwhile: they are whole again when this, or after a crash the next `recover`, has ended.

        Raises:
            ApplyError: before the commit point nothing has changed; behind it the next `recover` goes on from there.
        """
        staged = bool(manifest) and files.exists(self.path(manifest))
        every = [*names[:-1], *([manifest] if staged else []), *names[-1:]]
        removed = [*remove, manifest] if manifest and not staged else remove
        plan = Journal(every, self._unused(removed, every), self._unused(replaces_index, every), list(edits))
        _refuse_odd_names(plan.names)
        self._refuse_folders(plan)
        self._flush([*every, *(edit.name for edit in edits)])
        for edit in edits:
            files.close(files.open_for_writing(join(self._folder, edit.name)))  # a refusal is told while nothing has changed
        last_look()
        if self._resume:
            files.unlink(self.path(_STAYS))  # from here on there is nothing to go on with: what dies now is cleaned up by anybody
        if len(names) == 1 and not edits and not {*plan.remove, *plan.replaces_index} - {manifest}:
            self._commit_one(names[0], plan)
        else:
            self._commit_by_journal(plan)
        self._decided = True

    def _commit_one(self, name: str, plan: Journal) -> None:
        """One change of names, then the manifest: while an older one stands beside the new file, it does not fit that."""
        files.rename(self.path(name), join(self._folder, name))
        for manifest in plan.files[:-1]:
            files.rename(self.path(manifest), join(self._folder, manifest))
        for manifest in plan.remove:
            files.unlink(join(self._folder, manifest))
        files.fsync_folder(self._folder)
        files.remove_tree(self._staged)

    def _stays(self) -> bool:
        """Whether what is staged waits for the next run: there are tasks that this one finished, or found finished."""
        return self._resume and (self._taken_over or self._log is not None)

    def _unused(self, group: Iterable[str], names: Sequence[str]) -> list[str]:
        return [name for name in group if name not in names and files.exists(join(self._folder, name))]

    def _refuse_folders(self, plan: Journal) -> None:
        for name in plan.names:
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
        with ExitStack() as last:  # each is done, whatever another meets; the lock goes last
            last.callback(files.unlock, self._lock)
            if not self._decided and self._stays():
                last.callback(files.unlink, self.path(JOURNAL))  # one that is not durable decides nothing
            elif not self._decided:
                last.callback(_remove_empty, self._made)
                last.callback(_discard, self._staged)
            if self._log is not None:
                last.callback(files.close, self._log)
            last.callback(self._descriptors.close)


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


def clean(folder: str, but: Collection[str] = ()) -> None:
    """Remove what dead runs staged in a folder and did not commit, as far as permissions allow. For writers only.

    Not the paths in `but`, and not what is to stay until its run is resumed.
    """
    folder = folder or "."
    for staged in files.own_folders(folder, ".", SUFFIX):
        with _where_permitted():
            if staged not in but and not files.exists(join(staged, _STAYS)):
                _settle(folder, staged, files.lock_folder(staged), discard=True)


@contextmanager
def _where_permitted() -> Iterator[None]:
    try:
        yield
    except ApplyError as error:
        if error.code not in ("read-only", "permission-denied"):
            raise


def _roll_forward(folder: str, staged: str, journal: Journal) -> None:
    for name in journal.replaces_index:
        files.unlink(join(folder, name))
    if journal.files and files.is_regular(join(staged, journal.last)):  # otherwise the one in the folder is the new one already
        files.unlink(join(folder, journal.last))
    for edit in journal.edits:
        if files.is_regular(join(staged, edit.name)):
            beginning = files.read_file(join(staged, edit.name), edit.nbytes) or b""  # it is no longer than the file that it is for
            files.write_beginning(join(folder, edit.name), beginning, edit.inode, edit.nbytes, edit.mtime_ns)
            files.unlink(join(staged, edit.name))
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
        return join(folder, journal.last)
    finally:
        files.unlock(lock)


def _hold(folder: str, name: str, resume: bool) -> tuple[int, list[str]]:
    """The lock of a staging folder that is ours from its making on, and the folders made above it, outermost first.

    With `resume` it may be that of a dead run, with all that this had staged.
    """
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
            if lock is not None and resume and Journal.read(staged) is None:
                return lock, made
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


def leftover_bytes(folder: str) -> dict[str, int]:
    """Bytes that dead runs staged in a folder and did not commit: under no name what the next writer frees, whatever it writes.

    What waits for its run to be resumed is under the name of its staging folder: only the next writer of that output frees it, or goes on with it.
    """
    dead: dict[str, int] = {}
    for staged in files.own_folders(folder or ".", ".", SUFFIX):
        with _where_permitted():
            lock = files.lock_folder(staged)
            if lock is not None:
                name = staged.rpartition("/")[2] if files.exists(join(staged, _STAYS)) else ""
                dead[name] = dead.get(name, 0) + (0 if _is_foreign(staged) else files.allocated_bytes(staged))
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
