"""The words of a command line: what a command takes, reading it, and its help.

Written here and not with `argparse`, which refuses values that begin with `-` (`--sub '->' /`) and options between repeated
arguments (`run a.yaml --force b.yaml`), and whose import takes a tenth of a small plan. Knows no command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from surgery.errors import RecipeError, near, plural


class Argument(NamedTuple):
    """A word that stands by its place. An `optional` one may be left out; of a `repeated` one there are one or more."""

    keyword: str
    metavar: str
    help: str
    optional: bool = False
    repeated: bool = False

    @property
    def usage(self) -> str:
        """How the usage line shows it."""
        return f"[{self.metavar}]" if self.optional else f"{self.metavar}..." if self.repeated else self.metavar


class Option(NamedTuple):
    """A word that stands anywhere. It takes as many values as `metavar` has words, a switch none.

    A `repeated` one gives the list of all its values, of others the last counts. `read` turns each value into what the command
    wants, and raises ValueError with the reason where it cannot.
    """

    names: str
    metavar: str
    help: str
    default: Any = None
    repeated: bool = False
    read: Callable[[str], Any] = str

    @property
    def keyword(self) -> str:
        """The parameter of the command that takes its value: `--dry-run` is `dry_run`."""
        return self.names.split()[-1].removeprefix("--").replace("-", "_")

    @property
    def usage(self) -> str:
        """How help shows it: `-p, --param NAME=VALUE`."""
        return f"{', '.join(self.names.split())} {self.metavar}".rstrip()

    @property
    def unset(self) -> Any:
        """The value where it is not given."""
        return self.default if self.metavar else False


class Command(NamedTuple):
    """A command: the function that does it, whose docstring is the help text, and the words it takes. It may return an exit code."""

    run: Callable[..., int | None]
    arguments: Sequence[Argument] = ()
    options: Sequence[Option] = ()

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (self.run.__doc__ or "").splitlines()[0]


HELP = Option("-h --help", "", "print this help")


def parse(called: str, command: Command, words: Sequence[str]) -> Mapping[str, Any] | None:
    """The keyword arguments of a command, or None where help is asked for. `called` is how messages name the command.

    After `--` all words are arguments.

    Raises:
        RecipeError: an unknown option, one that lacks its value, an argument too many or too few.
    """
    values: dict[str, Any] = {option.keyword: [] if option.repeated else option.unset for option in command.options}
    by_name = {name: option for option in (*command.options, HELP) for name in option.names.split()}
    plain: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            plain += rest
        elif not word.startswith("-") or word == "-":
            plain.append(word)
        else:
            name, attached = _split(word)
            option = by_name.get(name)
            if option is None:
                raise _wrong(f"`{called}` has no option `{name}`", called, near(name, by_name))
            if option is HELP:
                return None
            value = _value(name, option, attached, rest)
            if option.repeated:
                values[option.keyword].append(value)
            else:
                values[option.keyword] = value
    return values | _placed(called, command.arguments, plain)


def _split(word: str) -> tuple[str, list[str]]:
    """The option that a word names, and the value attached to it: `--jobs=2`, `-pa=b`."""
    if not word.startswith("--"):
        return word[:2], [word[2:]] if word[2:] else []
    name, equals, value = word.partition("=")
    return name, [value] if equals else []


def _value(name: str, option: Option, attached: list[str], rest: Iterator[str]) -> Any:
    wanted = len(option.metavar.split())
    if attached and not wanted:
        raise RecipeError(f"`{name}` takes no value", code="bad-option", help=f"write `{name}` alone")
    texts = attached
    while len(texts) < wanted:
        word = next(rest, None)
        if word is None:
            raise RecipeError(f"`{name}` takes {plural(wanted, 'value')}", code="bad-option", help=f"write `{name} {option.metavar}`")
        texts.append(word)
    try:
        read = [option.read(text) for text in texts]
    except ValueError as error:
        raise RecipeError(f"`{name} {' '.join(texts)}`: {error}", code="bad-option", help=f"write `{name} {option.metavar}`") from None
    return tuple(read) if wanted > 1 else read[0] if wanted else True


def _placed(called: str, arguments: Sequence[Argument], words: list[str]) -> dict[str, Any]:
    """What the words that stand by their place mean; only a last argument is repeated or optional."""
    values: dict[str, Any] = {}
    for argument in arguments:
        if not words and not argument.optional:
            raise _wrong(f"`{called}` lacks {argument.metavar}", called)
        if argument.repeated:
            values[argument.keyword], words = words, []
        else:
            values[argument.keyword], words = (words[0] if words else None), words[1:]
    if words:
        raise _wrong(f"`{called}` does not take `{words[0]}`", called)
    return values


def _wrong(title: str, called: str, close: Sequence[str] = ()) -> RecipeError:
    return RecipeError(title, code="bad-option", help=f"did you mean `{close[0]}`?" if close else f"`{called} --help` tells what it takes")


def help_text(called: str, command: Command) -> str:
    """The help of one command."""
    usage = " ".join(["Usage:", called, "[OPTIONS]", *(argument.usage for argument in command.arguments)])
    arguments = [(argument.metavar, argument.help) for argument in command.arguments]
    options = [(option.usage, option.help + _default(option)) for option in (*command.options, HELP)]
    return "\n".join([usage, "", f"  {command.summary}", *section("Arguments", arguments), *section("Options", options)])


def _default(option: Option) -> str:
    return f" [default: {option.default}]" if option.default is not None else ""


def section(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of help: a title and two columns; nothing where there are no rows."""
    width = max((len(name) for name, _ in rows), default=0)
    return ["", f"{title}:", *(f"  {name:<{width}}  {text}" for name, text in rows)] if rows else []
