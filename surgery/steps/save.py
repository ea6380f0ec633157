"""`save`: writes what the table is at this point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from surgery import formats
from surgery.errors import RecipeError
from surgery.select import Selector, select
from surgery.steps.base import Output, State, Step
from surgery.steps.load import unknown_format
from surgery.steps.paths import impossible_path
from surgery.units import parse_size
from surgery.where import Size


class Save(Step, Selector):
    """Writes the table (or what is selected of it) as a checkpoint: complete, or not at all. Steps may go on after it."""

    word: ClassVar[str] = "save"
    example: ClassVar[str] = "{path: …}"
    path: str = Field(min_length=1, description="a file, a TensorFlow prefix, or with `shard_size` a folder")
    format: str | None = Field(None, description="the format's name where the suffix does not tell it")
    shard_size: Size | None = Field(None, description="start a new shard before this many bytes: 5GB")
    metadata: dict[str, str | None] | None = Field(None, description="metadata to add to the source's; null takes one away")
    overwrite: Literal["error", "replace"] = Field("error", description="what to do with an output that exists")
    latest: bool | None = Field(None, description="TensorFlow: name this save as newest in the `checkpoint` file (default true)")
    carry: Annotated[list[str], Field(min_length=1)] | None = Field(None, description="companion files to take along: [config.json, tokenizer*]")
    edit: dict[str, dict[str, Any]] | None = Field(None, description="fields to set in carried JSON files: {config.json: {vocab_size: 50304}}")

    def format_name(self) -> str | None:
        """The format, from the field or from the path's suffix."""
        return self.format or formats.by_suffix(self.path)

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        yield from unknown_format(self.format)
        yield from impossible_path(self.path)
        name = self.format_name()
        if name is None:
            yield self._format_needed()
        elif name in formats.NAMES:
            known = formats.by_name(name).OPTIONS
            for option in ("shard_size", "latest"):
                if getattr(self, option) is not None and option not in known:
                    yield RecipeError(f"the format {name} has no option `{option}`", code="unknown-option", at=(option,), help="leave it out")
        yield from self._lint_shards()
        if self.edit and not self.carry:
            yield RecipeError("`edit` changes carried files, and none is carried", code="bad-option", at=("edit",), help="add `carry: [config.json]`")

    def _format_needed(self) -> RecipeError:
        help = f"add `format:` ({', '.join(formats.NAMES)}) or a suffix such as .safetensors or .npz"
        if self.shard_size is not None:
            able = [name for name in formats.NAMES if "shard_size" in formats.by_name(name).OPTIONS]
            help = f"add {' or '.join(f'`format: {name}`' for name in reversed(able))}"
        return RecipeError(f"the path `{self.path}` does not tell the format", code="format-needed", at=("path",), help=help)

    def _lint_shards(self) -> Iterator[RecipeError]:
        if self.shard_size is None:
            return
        if not parse_size(self.shard_size):
            yield RecipeError("`shard_size` is 0", code="bad-option", at=("shard_size",), help="give a size above zero, such as 5GB")
        if self.format_name() == "safetensors" and formats.by_suffix(self.path) == "safetensors":
            folder = self.path.removesuffix(formats.suffixes("safetensors")[0])
            help = f"write `path: {folder}, format: safetensors`"
            yield RecipeError("with `shard_size`, `path` is a folder", code="bad-option", at=("path",), help=help)

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        table = state.table.only(chosen.keys) if len(chosen.keys) < len(state.table) else state.table
        options: dict[str, Any] = {}
        if self.shard_size is not None:
            options["shard_size"] = parse_size(self.shard_size)
        if self.latest is not None:
            options["latest"] = self.latest
        output = Output(
            step=state.step,
            path=self.path,
            format=self.format_name() or "",
            table=table,
            metadata=self.metadata or {},
            options=options,
            overwrite=self.overwrite == "replace",
            carry=tuple(self.carry or ()),
            edit=self.edit or {},
        )
        notes = () if table else (f"{self.path}: the output is empty",)
        return state._replace(outputs=(*state.outputs, output), notes=(*state.notes, *notes), faults=(*state.faults, *chosen.faults))


STEP = Save
