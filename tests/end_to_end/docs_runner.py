"""Runs the fenced blocks of a Markdown page, in order, in one folder. What each kind of block means:

    console   lines `$ command`, each followed by its exact output; `…` stands for anything within a line, and a last line
              `(exit code N)` for a command that fails
    yaml      a recipe that lints, or with a comment above: `file: NAME` (also written to that file), `target: NAME` (a target spec, written),
              `broken: NAME` (written, and must not lint), `fragment` (a list of steps that lints)
    python    run; with `>>>` as a doctest. All blocks of a page share their names
    text      no command; with the comment `prints` what the python block above prints

`<!-- setup: cp SOURCE TARGET -->` copies from the repository, `<!-- setup: same FILE SOURCE -->` compares bytes with it.
Everything else fails: an unknown language, comment or command. `python docs_runner.py PAGE…` writes real outputs into the pages.
"""

from __future__ import annotations

import doctest
import filecmp
import gc
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]

NOT_RUN = {
    "make demo": "makes an environment; the demo itself has a test of its own",
    "make test": "would run this test again",
    "make test-peers": "installs TensorFlow",
    "make schema": "writes into the repository; tests compare the schema",
    "make bench": "takes minutes",
    "make fuzz FUZZ_SECONDS=60 ARGS=npz": "takes a minute",
    "python -m fuzz --repeat .fuzz/npz/1a2b3c4d/plain.npz": "there is no such finding",
    "pip install .": "installs the package that is being tested",
    "python docs/make_steps.py": "writes into the repository; a test compares the page",
    "python docs/make_recipes.py": "writes into the repository; a test compares the page",
    "python docs/make_formats.py": "writes into the repository; a test compares the page",
    "python docs/make_importing.py": "needs transformers and torch; tests compare the page",
    "python tests/end_to_end/docs_runner.py README.md docs/*.md": "writes into the repository",
    ".ci/run": "runs everything, this test too",
}
"""Commands that pages show and this runner does not run, with the reason."""

SHELL_WORDS = frozenset({"cat", "cmp", "cp", "ls", "printf", "rm"})
"""Programs besides `surgery` that pages may run."""

_FENCE = re.compile(r"\s*```(.*)")
_COMMENT = re.compile(r"<!-- (.+) -->")
_VARYING = (
    (re.compile(r"\d+\.\d\d s, peak memory .+"), "… s, peak memory …"),
    (re.compile(r"memory .+ for arrays at most, \d+ jobs?$"), "memory … for arrays at most, …"),
)
"""What differs from run to run and from machine to machine: the number of cores decides about jobs and their memory."""


class Block(NamedTuple):
    """A fenced block, or a `setup` comment with language "setup". `line` is that of its first line in the page."""

    line: int
    language: str
    text: str
    notes: tuple[str, ...] = ()


class BlockError(AssertionError):
    """A block that does not do what the page says."""


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page. Raises BlockError for a fence that is never closed and a comment that belongs to nothing."""
    notes: list[str] = []
    lines = iter(enumerate(page.splitlines(), 1))
    for number, line in lines:
        fence, comment = _FENCE.match(line), _COMMENT.fullmatch(line.strip())
        if fence:
            inside = []
            for _, inner in lines:
                if inner.strip() == "```":
                    break
                inside.append(inner)
            else:
                raise BlockError(f"line {number}: the block is never closed")
            yield Block(number + 1, fence[1].strip(), "\n".join(inside) + "\n", tuple(notes))
            notes = []
        elif comment and comment[1].startswith("setup: "):
            yield Block(number, "setup", comment[1].removeprefix("setup: "))
        elif comment:
            notes.append(comment[1])
        elif notes and line.strip():
            raise BlockError(f"line {number}: the comment `{notes[0]}` stands above no block")


def run_page(path: Path, folder: Path, *, rewriting: bool = False) -> str:
    """Run all blocks of a page in `folder`; returns the page with what the commands really printed, which `rewriting` takes as right.

    Raises:
        BlockError: the first block that is not as the page says, with its place.
    """
    runner = _Page(folder, rewriting)
    page = path.read_text()
    lines = page.splitlines()
    told: list[str] = []
    seen = 0
    with chdir(folder), _wide_terminal():
        for block in blocks(page):
            try:
                printed = runner.run(block)
            except Exception as error:
                raise BlockError(f"{path.name}:{block.line}: {error}") from error
            if printed is not None:
                told += [*lines[seen : block.line - 1], printed]
                seen = block.line - 1 + block.text.count("\n")
    return "\n".join([*told, *lines[seen:]]) + "\n"


def agrees(expected: str, actual: str) -> bool:
    """Whether a text is as expected, where `…` stands for anything within a line."""
    pattern = "[^\n]*".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, actual) is not None


class _Page:
    """What the blocks of one page share."""

    def __init__(self, folder: Path, rewriting: bool) -> None:
        self.folder = folder
        self.rewriting = rewriting
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed = ""

    def run(self, block: Block) -> str | None:
        """Run one block; returns the text that a console block should have, None for others."""
        kinds = {"console": self.console, "yaml": self.yaml, "python": self.python, "text": self.text, "setup": self.setup}
        if block.language not in kinds:
            raise BlockError(f"no block is of the kind `{block.language}`")
        return kinds[block.language](block)

    def setup(self, block: Block) -> None:
        word, first, second = block.text.split()
        if word == "same":
            if not filecmp.cmp(self.folder / first, REPOSITORY / second, shallow=False):
                raise BlockError(f"{first} differs from {second}")
        elif word == "cp":
            source, target = REPOSITORY / first, self.folder / second
            shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, target)
        else:
            raise BlockError(f"no setup is called `{word}`")

    def console(self, block: Block) -> str:
        told = []
        for command, expected in _commands(block.text):
            if command in NOT_RUN:
                if expected:
                    raise BlockError(f"`{command}` is not run, so no output can be shown")
                told.append(f"$ {command}")
                continue
            actual = _output(command)
            if not (self.rewriting or agrees(expected, actual)):
                raise BlockError(f"$ {command}\n--- the page says\n{expected}--- it printed\n{actual}")
            told.append(f"$ {command}\n{_steady(actual)}".rstrip("\n"))
        return "\n".join(told)

    def yaml(self, block: Block) -> None:
        kind, _, name = block.notes[0].partition(": ") if block.notes else ("", "", "")
        if kind not in ("", "file", "target", "broken", "fragment") or len(block.notes) > 1:
            raise BlockError(f"no yaml block is `{'; '.join(block.notes)}`")
        if name:
            (self.folder / name).write_text(block.text)
        if kind == "target":
            _lint_target(block.text)
        elif kind == "fragment":
            _lint("surgery: 1\nsteps:\n" + "".join(f"  {line}\n" for line in block.text.splitlines()))
        elif kind == "broken":
            _must_not_lint(block.text)
        else:
            _lint(block.text)

    def python(self, block: Block) -> None:
        _no_notes(block)
        if block.text.startswith(">>>"):
            return self.session(block)
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(block.text, f"block at line {block.line}", "exec"), self.names)
        self.printed = out.getvalue()
        return None

    def session(self, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(block.text, self.names, "session", None, block.line)
        out = io.StringIO()
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=out.write, clear_globs=False)
        self.names |= test.globs
        if result.failed:
            raise BlockError(out.getvalue())

    def text(self, block: Block) -> None:
        if block.notes == ("prints",):
            if not agrees(block.text, self.printed):
                raise BlockError(f"--- the page says\n{block.text}--- it printed\n{self.printed}")
            return
        _no_notes(block)
        if re.search(r"^\$ ", block.text, re.MULTILINE):
            raise BlockError("commands stand in console blocks")


def _no_notes(block: Block) -> None:
    if block.notes:
        raise BlockError(f"no {block.language} block is `{'; '.join(block.notes)}`")


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output that stands below it."""
    if not text.startswith("$ "):
        raise BlockError("a console block begins with `$ `")
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def _output(command: str) -> str:
    """Standard output and error of a command as a terminal shows them, and the exit code where it is not 0."""
    word = command.split()[0]
    if word == "surgery":
        import shlex

        text, code = run_surgery(shlex.split(command)[1:])
    elif word in SHELL_WORDS:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        text, code = done.stdout, done.returncode
    else:
        raise BlockError(f"no page may run `{command}`")
    return f"{text}(exit code {code})\n" if code else text


def run_surgery(arguments: list[str]) -> tuple[str, int]:
    """The command line in this process, which is much faster than in another; what it changes in the process is put back."""
    from surgery.__main__ import main

    out = io.StringIO()
    handler, collecting = signal.getsignal(signal.SIGTERM), gc.isenabled()
    try:
        with redirect_stdout(out), redirect_stderr(out):
            code = main(arguments)
    finally:
        signal.signal(signal.SIGTERM, handler)
        gc.unfreeze()
        if collecting:
            gc.enable()
    return out.getvalue(), code


@contextmanager
def _wide_terminal() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "120"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _steady(output: str) -> str:
    """An output with `…` where it differs from run to run and from machine to machine."""
    lines = output.splitlines(keepends=True)
    for pattern, steady in _VARYING:
        lines = [pattern.sub(steady, line) for line in lines]
    return "".join(lines)


def _lint(text: str) -> None:
    from surgery.recipe import load

    load(text, "block.yaml", lint_only=True)


def _must_not_lint(text: str) -> None:
    from surgery.errors import RecipeError

    try:
        _lint(text)
    except RecipeError:
        return
    raise BlockError("the recipe lints, and the page calls it broken")


def _lint_target(text: str) -> None:
    from surgery.located import parse
    from surgery.steps.targets import VariablesFile

    VariablesFile.model_validate(parse(text, "target.yaml").data)


def _rewrite(pages: list[str]) -> None:
    import tempfile

    for page in map(Path, pages):
        with tempfile.TemporaryDirectory() as folder:
            page.write_text(run_page(page.resolve(), Path(folder), rewriting=True))


if __name__ == "__main__":
    _rewrite(sys.argv[1:])
