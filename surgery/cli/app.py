"""The command line as a whole: which commands there are, what each takes, and running the one that is asked for.

A new option is one `Option` here and one parameter of the command.
"""

from __future__ import annotations

import sys

from surgery.cli import commands as do
from surgery.cli.arguments import HELP, Argument, Command, Option, help_text, parse, section
from surgery.errors import RecipeError, near


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("the number of threads is 1 or more")
    return int(text)


RECIPE = Argument("recipe", "RECIPE", "a recipe: a YAML file, or a name that `surgery recipes list` shows")
PARAMS = (
    Option("-p --param", "NAME=VALUE", "value of a parameter; may be repeated", repeated=True),
    Option("--params", "FILE", "parameters as YAML or JSON"),
)
DRY_RUN = Option("--dry-run", "", "print the plan and stop")
FORCE = Option("--force", "", "let every save replace what exists")
STRICT = Option("--strict", "", "left-over tensors are an error")
VERIFY = Option("--verify", "", "verify stored checksums even where no byte is moved")
VERIFY_INVERSE = Option("--verify-inverse", "", "compare what the inverse gives back with the sources, before the commit")
RESUME = Option("--resume", "", "go on from what a killed run finished; keep what this one finishes if it fails")
DIGEST = Option("--digest", "", "put the SHA-256 of every file written into the manifest")
JOBS = Option("--jobs", "N", "threads; default: the number of cores", read=_jobs)
MEMORY = Option("--memory", "SIZE", "budget of all arrays together, such as 2GiB", default="512MiB")
JSON = Option("--json", "", "print JSON to stdout")

COMMANDS = {
    "run": Command(
        do.run,
        [Argument("recipes", "RECIPE", "recipes, files or names, run one after the other", repeated=True)],
        [*PARAMS, DRY_RUN, FORCE, STRICT, VERIFY, VERIFY_INVERSE, RESUME, DIGEST, JOBS, MEMORY, JSON],
    ),
    "plan": Command(do.plan, [RECIPE], [*PARAMS, FORCE, STRICT, JOBS, MEMORY, JSON]),
    "lint": Command(do.lint, [Argument("recipes", "RECIPE", "recipes to check, files or names", repeated=True)], [*PARAMS, JSON]),
    "test": Command(
        do.test,
        [Argument("recipes", "RECIPE", "recipes, files or names, whose `tests:` are run", repeated=True)],
        [Option("-k --keyword", "TEXT", "only tests with this text in their name"), JSON],
    ),
    "invert": Command(do.invert, [RECIPE], [*PARAMS, Option("-o --out", "FILE", "write the inverse to a file"), JSON]),
    "inspect": Command(
        do.inspect,
        [Argument("path", "PATH", "a file, a TensorFlow prefix, or a folder")],
        [
            Option("--tree", "", "keys as a tree of scopes, with dtype, shape and bytes"),
            Option("--key", "KEY", "one tensor with its place and values"),
            Option("--spec", "", "a target spec (`variables:`) to be used with `like:`"),
            Option("--format", "FORMAT", "the format, where content does not tell it"),
            JSON,
        ],
    ),
    "explain": Command(do.explain, [RECIPE, Argument("key", "KEY", "a key of an output")], PARAMS),
    "rename": Command(
        do.rename,
        [
            Argument("source", "CKPT", "a checkpoint"),
            Argument("target", "OUT", "where the renamed one goes; may be CKPT itself with --force; none with --in-place", optional=True),
        ],
        [
            Option("--sub", "A B", "replace each match of the pattern A by B; may be repeated", repeated=True),
            Option("--prefix", "P", "put P in front of every key, after --sub"),
            Option("--format", "FORMAT", "format of OUT; default: from its suffix, else that of CKPT"),
            Option("--in-place", "", "change the names in CKPT itself, without moving its tensors"),
            DRY_RUN,
            FORCE,
            JSON,
        ],
    ),
    "recipes": Command(
        do.recipes,
        [
            Argument("action", "list|show", "`list` names all, `show` tells about one"),
            Argument("name", "NAME", "the recipe to show", optional=True),
        ],
        [Option("--yaml", "", "the text of the recipe alone"), JSON],
    ),
    "import": Command(
        do.import_,
        [
            Argument("kind", "KIND", "what it is: tf, t5x, csv or transformers"),
            Argument("mapping", "FILE|MODELTYPE", "the mapping; for transformers a model type, such as mixtral, or a config.json"),
        ],
        [
            Option("-o --output", "FILE", "write the recipe to a file; default: to stdout"),
            Option("--direction", "WAY", "forward, as the mapping says, or reverse, back from there", default="forward"),
        ],
    ),
    "steps": Command(do.steps, [Argument("word", "STEP", "one step with all its options", optional=True)]),
    "formats": Command(do.formats, options=[JSON]),
    "schema": Command(do.schema, options=[Option("--write", "FILE", "write it to a file")]),
    "demo": Command(do.demo, [Argument("folder", "FOLDER", "where to make the demo files; default: a temporary folder", optional=True)]),
}


def _surgery(version: bool, show_completion: str | None) -> None:
    if version:
        from surgery import __version__

        print(f"surgery {__version__}")
    if show_completion is not None:
        from surgery.cli.completion import SHELLS

        if show_completion not in SHELLS:
            raise RecipeError(f"no completion for `{show_completion}`", code="bad-option", help=f"shells are {', '.join(SHELLS)}")
        print(SHELLS[show_completion](COMMANDS))


SURGERY = Command(
    _surgery,
    options=[
        Option("-V --version", "", "print the version"),
        Option("--show-completion", "SHELL", "print a script that completes commands and options, for bash, zsh or fish"),
    ],
)


def run_app(arguments: list[str]) -> int:
    """Parse the arguments and run the command; returns the exit code."""
    if not arguments:
        print(_overview(), file=sys.stderr)
        return 2
    name, *rest = arguments
    if name.startswith("-"):
        called, command, rest = "surgery", SURGERY, arguments
    elif name in COMMANDS:
        called, command = f"surgery {name}", COMMANDS[name]
    else:
        close = near(name, COMMANDS)
        help = f"did you mean `{close[0]}`?" if close else "`surgery --help` lists them all"
        raise RecipeError(f"no command is called `{name}`", code="bad-option", help=help)
    values = parse(called, command, rest)
    code = 0
    if values is not None:
        code = command.run(**values) or 0
    else:
        print(_overview() if command is SURGERY else help_text(called, command))
    sys.stdout.flush()  # here, where a closed pipe is noticed
    return code


def _overview() -> str:
    heading = "Checkpoint surgery: rename, re-scope, drop, initialise, cast and re-save, planned from headers."
    options = [(option.usage, option.help) for option in (*SURGERY.options, HELP)]
    commands = [(name, command.summary) for name, command in COMMANDS.items()]
    lines = ["Usage: surgery [OPTIONS] COMMAND [ARGS]...", "", f"  {heading}", *section("Options", options), *section("Commands", commands)]
    return "\n".join(lines)
