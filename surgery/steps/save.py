"""`save`: writes what the table is at this point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from surgery import formats
from surgery.errors import PlanError, RecipeError, listed, plural
from surgery.formats.base import WRITABLE, Indexed, read_only
from surgery.models import Field
from surgery.select import Selector, select
from surgery.steps.base import Output, Reads, State, Step
from surgery.steps.load import unknown_format
from surgery.steps.paths import impossible_path
from surgery.table import Table
from surgery.units import parse_size
from surgery.where import Size

_FORMAT_OPTIONS = ("latest", "align", "meta", "model", "external_data")
"""Options that only some formats have."""


class Save(Step, Selector):
    """Writes the table (or what is selected of it) as a checkpoint: complete, or not at all. Steps may go on after it."""

    word: ClassVar[str] = "save"
    example: ClassVar[str] = "{path: …}"
    path: str = Field(min_length=1, description="a file, a TensorFlow prefix, or with `shard_size` a folder")
    format: str | None = Field(None, description="the format's name where the suffix does not tell it")
    shard_size: Size | None = Field(None, description="start a new shard before this many bytes: 5GB")
    metadata: dict[str, str | None] | None = Field(None, description="metadata to add to the source's; null takes one away")
    overwrite: Literal["error", "replace"] = Field("error", description="what to do with an output that exists")
    in_place: bool = Field(False, description="give a loaded checkpoint, which `path` is, other keys and metadata without moving its tensors")
    latest: bool | None = Field(None, description="TensorFlow: name this save as newest in the `checkpoint` file (default true)")
    align: bool | None = Field(None, description="TensorFlow: leave gaps, so that file systems can share blocks with the source (default false)")
    model: str | None = Field(None, min_length=1, description="ONNX: the model to copy with other tensors (default: the one they were loaded from)")
    external_data: bool | None = Field(None, description="ONNX: tensors in a file beside the model, or in it (default: as the model has them)")
    meta: Literal["write"] | None = Field(None, description="TensorFlow: write a fresh graph `PREFIX.meta` for `import_meta_graph`")
    carry: Annotated[list[str], Field(min_length=1)] | None = Field(None, description="companion files to take along: [config.json, tokenizer*]")
    edit: dict[str, dict[str, Any]] | None = Field(None, description="fields to set in carried JSON files: {config.json: {vocab_size: 50304}}")
    separator: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="where keys are cut into the names of a tree, in place of the format's own"
    )
    manifest: bool = Field(True, description="write beside the output what it was made from, so that the next run can tell that it is up to date")

    def format_name(self) -> str | None:
        """The format, from the field or from the path's suffix; in place, only the loaded checkpoint tells it."""
        return self.format or formats.by_suffix(self.path)

    def lint(self) -> Iterator[RecipeError]:
        yield from self.lint_selector()
        yield from unknown_format(self.format)
        yield from impossible_path(self.path)
        name = self.format_name()
        if self.in_place:
            yield from self._lint_in_place()
        elif name is None:
            yield self._format_needed()
        elif name in formats.NAMES:
            known = formats.by_name(name).OPTIONS
            if formats.by_name(name).layout is read_only:
                yield RecipeError(f"{name} is only read here", code="read-only-format", at=("format",) if self.format else ("path",), help=WRITABLE)
            if self.separator is not None and not formats.separator(name):
                yield RecipeError(f"the format {name} does not join names", code="unknown-option", at=("separator",), help="leave `separator` out")
            for option in ("shard_size", *_FORMAT_OPTIONS):
                if getattr(self, option) is not None and option not in known:
                    yield RecipeError(f"the format {name} has no option `{option}`", code="unknown-option", at=(option,), help="leave it out")
        yield from self._lint_shards()
        if self.edit and not self.carry:
            yield RecipeError("`edit` changes carried files, and none is carried", code="bad-option", at=("edit",), help="add `carry: [config.json]`")

    def _lint_in_place(self) -> Iterator[RecipeError]:
        for option in ("format", "shard_size", "carry", "edit", "separator", *_FORMAT_OPTIONS):
            if getattr(self, option) is not None:
                yield RecipeError(
                    f"in place, `{option}` has no meaning", code="bad-option", at=(option,), help="leave it out: the files stay as they are"
                )

    def _format_needed(self) -> RecipeError:
        writable = [name for name in formats.NAMES if formats.by_name(name).layout is not read_only]
        help = f"add `format:` ({', '.join(writable)}) or a suffix such as .safetensors or .npz"
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

    def reads(self) -> Iterator[Reads]:
        if self.model is not None:
            yield Reads(self.model, self.format_name(), False, ("model",))

    def rewrite(self, state: State) -> State:
        chosen = select(self, state)
        table = state.table.only(chosen.keys) if len(chosen.keys) < len(state.table) else state.table
        table = self._separated(table, state.step)
        options: dict[str, Any] = {}
        if self.shard_size is not None:
            options["shard_size"] = parse_size(self.shard_size)
        for option in _FORMAT_OPTIONS:
            if getattr(self, option) is not None:
                options[option] = getattr(self, option)
        if self.model is not None:
            options["model"] = state.catalog.checkpoints[self.model]
        source = self._replaced(state) if self.in_place else None
        output = Output(
            step=state.step,
            path=self.path,
            format=source.format if source else self.format_name() or "",
            table=table,
            metadata=self.metadata or {},
            options=options,
            overwrite=self.overwrite == "replace" or self.in_place,
            carry=tuple(self.carry or ()),
            edit=self.edit or {},
            manifest=self.manifest,
            in_place=source.location if source else "",
        )
        return state._replace(outputs=(*state.outputs, output), notes=(*state.notes, *self._notes(output)), faults=(*state.faults, *chosen.faults))

    def _notes(self, output: Output) -> Iterator[str]:
        if not output.table:
            yield f"{self.path}: the output is empty"
        misleading = None if self.in_place else formats.misleading_suffix(self.path, output.format)
        if misleading:
            suffix, other = misleading
            yield f"{self.path}: {suffix} is the suffix of {other}; readers that go by suffixes have to be told `format: {output.format}`"

    def _separated(self, table: Table, step: int) -> Table:
        """The table with the format's own separator in its keys. Raises PlanError for a key that this would cut elsewhere too."""
        own = formats.separator(self.format_name() or "")
        if self.separator in (None, own):
            return table
        cut = [key for key in table if own in key]
        if cut:
            raise PlanError(
                f"{self.format_name()} would cut {plural(len(cut), 'key')} at `{own}`, too",
                code="key-not-storable",
                at=("separator",),
                notes=[listed(cut)],
                help="`rename` them, or leave `separator` out",
                data={"keys": cut},
            )
        return table.rekey({key: key.replace(self.separator or own, own) for key in table}, step).table

    def _replaced(self, state: State) -> Indexed:
        """The loaded checkpoint that this save gives other keys."""
        loaded = state.catalog.checkpoints
        if self.path not in loaded:
            raise PlanError(
                f"no step loads `{self.path}`, which is to be renamed in place",
                code="not-in-place",
                at=("path",),
                notes=[f"loaded are {listed(list(loaded))}" if loaded else "nothing is loaded"],
                help="give the path exactly as `load` has it",
            )
        return loaded[self.path]


STEP = Save
