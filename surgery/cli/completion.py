"""Scripts that teach a shell to complete `surgery`: its commands, their options, names of recipes, and file names everywhere else.

The scripts hold all words themselves, so that a Tab starts no Python; of recipes, those that are installed with this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from surgery.cli.arguments import HELP, Command
from surgery.library import own_names

Commands = Mapping[str, Command]


def bash(commands: Commands) -> str:
    """For bash: `eval "$(surgery --show-completion bash)"` in ~/.bashrc."""
    cases = [f"    {name}) words='{' '.join(_options(command))}' values='{' '.join(_values(command))}' ;;" for name, command in commands.items()]
    return "\n".join(
        [
            "_surgery() {",
            '  local words="" values="" found word="${COMP_WORDS[COMP_CWORD]}"',
            "  COMPREPLY=()",
            '  case "${COMP_WORDS[1]}" in',
            *cases,
            "  esac",
            f"  [ \"$COMP_CWORD\" -eq 1 ] && words='{' '.join(commands)} --help --version'",
            '  if [ "$COMP_CWORD" -eq 1 ] || [ "${word:0:1}" = - ]; then COMPREPLY=($(compgen -W "$words" -- "$word")); return; fi',
            '  found=$(compgen -W "$values" -- "$word") || return 0',  # no name begins so: the shell's own completion follows
            '  COMPREPLY=($found $(compgen -f -- "$word" || true))',
            "}",
            "complete -o default -F _surgery surgery",
        ]
    )


def zsh(commands: Commands) -> str:
    """For zsh, which can run bash's: `eval "$(surgery --show-completion zsh)"` in ~/.zshrc."""
    return "\n".join(["autoload -U +X compinit && compinit", "autoload -U +X bashcompinit && bashcompinit", bash(commands)])


def fish(commands: Commands) -> str:
    """For fish: `surgery --show-completion fish > ~/.config/fish/completions/surgery.fish`."""
    lines = []
    for name, command in commands.items():
        lines.append(f"complete -c surgery -n __fish_use_subcommand -f -a {name} -d {_quoted(command.summary)}")
        if _values(command):
            lines.append(f"complete -c surgery -n '__fish_seen_subcommand_from {name}' -a '{' '.join(_values(command))}'")
        for option in (*command.options, HELP):
            words = [f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in option.names.split()]
            value = ["-r"] if option.metavar else []
            lines.append(" ".join([f"complete -c surgery -n '__fish_seen_subcommand_from {name}'", *words, *value, f"-d {_quoted(option.help)}"]))
    return "\n".join(lines)


def _options(command: Command) -> list[str]:
    return [name for option in (*command.options, HELP) for name in option.names.split()]


def _values(command: Command) -> list[str]:
    """What may stand as an argument, as far as that is known: names of recipes, words to choose from."""
    metavars = [argument.metavar for argument in command.arguments]
    words = [word for metavar in metavars if "|" in metavar for word in metavar.split("|")]
    return words + (own_names() if {"RECIPE", "NAME"} & set(metavars) else [])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


SHELLS: Mapping[str, Callable[[Commands], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
