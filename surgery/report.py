"""Plans, reports, checkpoints and single keys as text and as JSON. Formatting only."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from surgery.errors import UnsupportedFeature, listed, one_line, plural
from surgery.expr import Expr
from surgery.tensors import TensorSpec
from surgery.units import size_text

if TYPE_CHECKING:
    from surgery.api import Checkpoint, LazyTensor, Plan
    from surgery.cases import Result
    from surgery.execute import Report
    from surgery.manifest import Written
    from surgery.table import Entry

_NUMBERED = re.compile(r"\d+")
_ALL_ZERO = str.maketrans("123456789", "000000000")
_SHOWN_KEYS = 12
_LISTING_WIDTH = 120
_DEEPEST = 50
_LONGEST_YAML_KEY = 1000  # `key: value` on one line allows 1024 characters
_MOST_DIGITS = 18


def plan_text(plan: Plan) -> str:
    """A plan for people: what is read, what each step did, what is written, and what it costs."""
    lines = []
    for source in plan.logical.sources.values():
        nbytes = sum(expr.spec.nbytes for expr in source.tensors.values())
        lines.append(f"read   {source.location}: {source.format}, {plural(len(source.tensors), 'tensor')}, {size_text(nbytes)}")
    for dropped in plan.logical.dropped:
        lines.append(f"drop   {plural(len(dropped.keys), 'tensor')} (steps[{dropped.step}]): {listed(list(dropped.keys), 3)}")
    for output, planned in zip(plan.logical.outputs, plan.physical.outputs, strict=True):
        moved = _moved(planned.shared_bytes, planned.copied_bytes - planned.shared_bytes, planned.computed_bytes, planned.kept_bytes)
        files = plural(len(planned.layout.files), "file")
        verb = "rename" if planned.kept or planned.edits else "replace" if planned.overwrites else "write"
        lines.append(f"{verb:<6} {output.path}: {output.format}, {plural(planned.tensors, 'tensor')}, {moved}, {files}")
        lines += [f"       {line}" for line in collapsed({key: entry.spec for key, entry in output.table.items()})]
        if planned.stale:
            lines.append(f"       removes {plural(len(planned.stale), 'older file')}: {listed(planned.stale, 3)}")
    notes = [*plan.logical.notes, *plan.physical.notes]
    if plan.logical.left_over:
        keys = [key for _, key in plan.logical.left_over]
        notes.append(f"{plural(len(keys), 'loaded tensor')} left over, neither saved nor dropped: {listed(keys)}")
    if not plan.logical.outputs:
        notes.append("nothing is saved: the recipe has no `save`")
    lines += [f"note   {note}" for note in dict.fromkeys(notes)]
    if plan.logical.checks:
        lines.append(f"check  {plural(len(plan.logical.checks), 'demand')} on values before the commit")
    lines.append(f"memory {size_text(plan.physical.peak_bytes)} for arrays at most, {plural(plan.jobs, 'job')}")
    return "\n".join(map(one_line, lines))


def _moved(shared: int, copied: int, computed: int, kept: int) -> str:
    """How the bytes of an output come about; those that are shared or left in place are not moved at all."""
    parts = [("shared", shared), ("copied", copied), ("computed", computed), ("left in place", kept)]
    return ", ".join(f"{size_text(nbytes)} {word}" for word, nbytes in parts if nbytes) or "0 B copied"


def collapsed(rows: Mapping[str, TensorSpec], shown: int = _SHOWN_KEYS) -> list[str]:
    """Rows of key and spec, where keys that differ only in numbers and have the same spec share a line."""
    groups: dict[tuple[str, TensorSpec], list[str]] = {}
    for key, pattern, spec in zip(rows, _without_numbers(list(rows)), rows.values(), strict=True):
        groups.setdefault((pattern, spec), []).append(key)
    whole = len(groups) <= shown
    lines = [f"{_numbered(keys)}  {spec}" for (_, spec), keys in islice(groups.items(), shown if whole else shown - 1)]
    return lines if whole else [*lines, f"… and {len(groups) - shown + 1:,} more lines; `--json` has all"]


def _without_numbers(keys: Sequence[str]) -> list[str]:
    """The keys with a `0` for each number, whatever it is; a million ASCII keys are one text for that, one a line."""
    text = "\n".join(keys)
    if not text.isascii() or text.count("\n") != len(keys) - 1:
        return [_NUMBERED.sub("0", key) for key in keys]
    text = text.translate(_ALL_ZERO)
    while "00" in text:
        text = text.replace("00", "0")
    return text.split("\n")


def _numbered(keys: list[str]) -> str:
    """`layer.{0-11}.weight` for keys that differ in one number only; otherwise the first and how many follow."""
    if len(keys) == 1:
        return keys[0]
    first = _NUMBERED.findall(keys[0])
    varying: set[int] = set()
    values = []
    for key in keys:
        numbers = _NUMBERED.findall(key)
        varying.update(at for at, number in enumerate(numbers) if number != first[at])
        if len(varying) > 1:
            return f"{keys[0]} and {len(keys) - 1:,} alike"
        values.append(numbers)
    place = varying.pop()
    if any(len(numbers[place]) > _MOST_DIGITS for numbers in values):
        return f"{keys[0]} and {len(keys) - 1:,} alike"
    found = sorted(int(numbers[place]) for numbers in values)
    span = f"{found[0]}-{found[-1]}" if found == list(range(found[0], found[0] + len(found))) else ", ".join(map(str, found[:6]))
    at = iter(range(len(first)))
    return _NUMBERED.sub(lambda number: f"{{{span}}}" if next(at) == place else number[0], keys[0])


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan for programs, with every key."""
    return {
        "recipe": plan.recipe.name,
        "sources": [
            {"path": source.location, "format": source.format, "tensors": len(source.tensors), "metadata": dict(source.metadata)}
            for source in plan.logical.sources.values()
        ],
        "outputs": [
            {
                "path": output.path,
                "format": output.format,
                "files": [file.name for file in planned.layout.files],
                "overwrites": planned.overwrites,
                "removes": list(planned.stale),
                "shared_bytes": planned.shared_bytes,
                "copied_bytes": planned.copied_bytes - planned.shared_bytes,
                "computed_bytes": planned.computed_bytes,
                "kept_bytes": planned.kept_bytes,
                "tensors": {key: _tensor_json(entry) for key, entry in output.table.items()},
            }
            for output, planned in zip(plan.logical.outputs, plan.physical.outputs, strict=True)
        ],
        "dropped": [{"step": dropped.step, "keys": list(dropped.keys)} for dropped in plan.logical.dropped],
        "left_over": [{"checkpoint": source, "key": key} for source, key in plan.logical.left_over],
        "notes": list(dict.fromkeys([*plan.logical.notes, *plan.physical.notes])),
        "checks": len(plan.logical.checks),
        "peak_array_bytes": plan.physical.peak_bytes,
    }


def _tensor_json(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"dtype": entry.spec.dtype.name, "shape": list(entry.spec.shape)}
    if entry.source:
        row |= {"from": entry.root.key, "checkpoint": entry.source}
    return row


def report_text(report: Report) -> str:
    """A finished run for people."""
    lines = []
    for output in report.outputs:
        moved = _moved(output.shared_bytes, output.copied_bytes, output.computed_bytes, output.kept_bytes)
        verified = f", {plural(output.verified, 'checksum')} verified" if output.verified else ""
        lines.append(f"wrote  {output.path}: {plural(output.tensors, 'tensor')}, {moved}{verified}")
    checked = f"{plural(report.checks, 'demand')} on values held, " if report.checks else ""
    resumed = f"{size_text(report.resumed_bytes)} were there already, " if report.resumed_bytes else ""
    lines.append(f"done   {checked}{resumed}{report.seconds:.2f} s, peak memory {size_text(report.peak_rss_bytes)}")
    return "\n".join(lines)


def report_json(report: Report) -> dict[str, Any]:
    """A finished run for programs."""
    return {"up_to_date": False, **report._asdict(), "outputs": [output._asdict() for output in report.outputs]}


def up_to_date_text(outputs: Iterable[Written]) -> str:
    """A run that had nothing to do, for people."""
    return "\n".join(one_line(f"{output.path}: up to date") for output in outputs)


def up_to_date_json(outputs: Iterable[Written]) -> dict[str, Any]:
    """A run that had nothing to do, for programs."""
    return {"up_to_date": True, "outputs": [{"path": output.path, "files": [*output.files, *output.shared]} for output in outputs]}


def listing(checkpoint: Checkpoint) -> str:
    """What `tf.train.list_variables` returns, as Python prints it: sorted pairs of key and shape."""
    from pprint import pformat

    pairs = [(key, list(checkpoint[key].shape)) for key in sorted(checkpoint, key=lambda key: key.encode("utf-8", "surrogateescape"))]
    rows = [repr(pair) for pair in pairs]
    if sum(map(len, rows)) <= _LISTING_WIDTH or max(map(len, rows)) > _LISTING_WIDTH - 2:
        return pformat(pairs, width=_LISTING_WIDTH)
    return "[" + ",\n ".join(rows) + "]"  # the same, in a tenth of the time


def tree(tensors: Mapping[str, Expr]) -> str:
    """Keys as a tree of scopes, split at `/` where any key has one and at `.` elsewhere; leaves tell dtype, shape and bytes."""
    separator = "/" if any("/" in key for key in tensors) else "."
    root: dict[str, Any] = {}
    for key, expr in tensors.items():
        node = root
        *scopes, leaf = key.split(separator, _DEEPEST)
        for scope in scopes:
            child = node.setdefault(scope + separator, {})
            node = child if isinstance(child, dict) else node
        node[leaf] = expr
    lines: list[str] = []
    _branches(root, "", lines)
    return "\n".join(map(one_line, lines))


def _branches(node: Mapping[str, Any], indent: str, lines: list[str]) -> None:
    for position, (name, child) in enumerate(node.items(), 1):
        last = position == len(node)
        stem, below = ("└── ", "    ") if last else ("├── ", "│   ")
        if isinstance(child, dict):
            inside = list(_leaves(child))
            lines.append(f"{indent}{stem}{name}  ({plural(len(inside), 'tensor')}, {size_text(sum(expr.spec.nbytes for expr in inside))})")
            _branches(child, indent + below, lines)
        else:
            lines.append(f"{indent}{stem}{name}  {child.spec}  {size_text(child.spec.nbytes)}")


def _leaves(node: Mapping[str, Any]) -> Iterable[Expr]:
    for child in node.values():
        if isinstance(child, dict):
            yield from _leaves(child)
        else:
            yield child


def checkpoint_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint's headers for programs."""
    return {
        "path": checkpoint.indexed.location,
        "format": checkpoint.format,
        "metadata": dict(checkpoint.metadata),
        "files": [file.path for file in checkpoint.indexed.files],
        "notes": list(checkpoint.indexed.notes),
        "tensors": {key: {"dtype": tensor.dtype, "shape": list(tensor.shape), "nbytes": _nbytes(tensor.expr)} for key, tensor in checkpoint.items()},
    }


def _nbytes(expr: Expr) -> int:
    ranges = expr.view()
    return expr.spec.nbytes if expr.spec.dtype.bits or ranges is None else sum(extent.nbytes for extent in ranges)


def spec_yaml(checkpoint: Checkpoint) -> str:
    """A target spec (`variables:`) of a checkpoint, to be used with `like:`.

    Raises:
        UnsupportedFeature: a key is not UTF-8, for which YAML has no form.
    """
    lines = [_variable(key, f"{{shape: {list(tensor.shape)}, dtype: {tensor.dtype}}}") for key, tensor in checkpoint.items()]
    return "\n".join(["variables:", *lines]) if lines else "variables: {}"


def _variable(key: str, spec: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in key):
        raise UnsupportedFeature(f"{key!a} is not UTF-8, and YAML has no form for it", help="use the checkpoint itself as `like`")
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", key) and len(key) <= _LONGEST_YAML_KEY:
        return f"  {key}: {spec}"
    quoted = "".join(letter if letter.isprintable() and letter not in '"\\' else f"\\U{ord(letter):08x}" for letter in key)
    return f'  "{quoted}": {spec}' if len(quoted) <= _LONGEST_YAML_KEY else f'  ? "{quoted}"\n  : {spec}'


def tensor_text(tensor: LazyTensor) -> str:
    """One tensor with its place in the file and its values, shortened as numpy does."""
    import numpy as np

    lines = [f"{tensor.key}  {tensor.spec}  {size_text(_nbytes(tensor.expr))}"]
    lines += [
        f"{extent.file.path}, bytes {extent.start:,} to {extent.stop:,}"
        + (f", {extent.file.checksum_kind} {extent.checksum:08x}" if extent.checksum is not None else "")
        for extent in tensor.expr.view() or ()
    ]
    return "\n".join([*map(one_line, lines), np.array2string(tensor.numpy(), threshold=40, edgeitems=3)])


def tensor_json(tensor: LazyTensor) -> dict[str, Any]:
    """One tensor's headers for programs, with the byte ranges where it lies."""
    ranges = tensor.expr.view()
    places = [{"file": extent.file.path, "start": extent.start, "stop": extent.stop} for extent in ranges or ()]
    return {"key": tensor.key, "dtype": tensor.dtype, "shape": list(tensor.shape), "nbytes": _nbytes(tensor.expr), "stored": places}


def explain(plan: Plan, key: str) -> str:
    """The hops of one output tensor: where its bytes lie, what each step made of it, where it is written.

    Raises:
        NotFoundError: no output has the key.
    """
    from surgery.errors import NotFoundError
    from surgery.keys import near_names

    found = [(number, output) for number, output in enumerate(plan.logical.outputs) if key in output.table]
    if not found:
        every = [name for output in plan.logical.outputs for name in output.table]
        close = near_names(key, every)
        raise NotFoundError(
            f"Key {key} not found in checkpoint",
            sentence=True,
            notes=[f"no output of {plan.recipe.document.name} has it", *_fate(plan, key)],
            help=f"near names: {listed(close)}" if close else "list the output keys with `surgery plan --json`",
            data={"keys": [key]},
        )
    return "\n\n".join(_explained(plan, number, key) for number, _ in found)


def _fate(plan: Plan, key: str) -> list[str]:
    notes = [f"steps[{dropped.step}] dropped it" for dropped in plan.logical.dropped if key in dropped.keys]
    for output in plan.logical.outputs:
        for name, entry in output.table.items():
            if any(hop.key == key for hop in entry.hops()):
                return [*notes, f"a tensor that was called so is `{name}` in {output.path}"]
    return notes


def _explained(plan: Plan, number: int, key: str) -> str:
    output, planned = plan.logical.outputs[number], plan.physical.outputs[number]
    entry = output.table[key]
    lines = [f"{key}  {entry.spec}"]
    for leaf in dict.fromkeys(entry.expr.leaves()):
        for extent in leaf.view() or ():
            lines.append(f"  {'stored':<12} {extent.file.path}, bytes {extent.start:,} to {extent.stop:,} ({extent.spec})")
    hops = entry.hops()
    for hop, after in zip(hops, [*hops[1:], None], strict=True):
        item = plan.recipe.steps[[item.number for item in plan.recipe.steps].index(hop.step)]
        now = after.key if after else key
        change = f"`{hop.key}` → `{now}`" if now != hop.key else f"`{now}`"
        lines.append(f"  {item.step.word:<12} {change}  ({item.document.where(item.path, key=True)})")
    ranges = entry.expr.view()
    lines.append(f"  {'bytes':<12} {'copied as they are' if ranges is not None else 'computed: ' + _formula(entry.expr)}")
    for file in planned.layout.files:
        for placement in file.placements:
            if placement.key == key:
                path = posixpath.join(planned.layout.folder, file.name)
                stop = placement.start + _nbytes(entry.expr)
                lines.append(f"  {'written':<12} {path}, bytes {placement.start:,} to {stop:,}")
    return "\n".join(lines)


def _formula(expr: Expr) -> str:
    name = type(expr).__name__.lower()
    return f"{name}({', '.join(_formula(child) for child in expr.children)}) → {expr.spec}" if expr.children else str(expr.spec)


def result_text(result: Result) -> str:
    """How a self-test ended: a line, and where it failed one for each difference."""
    first = f"{'ok' if result.passed else 'FAILED':<7} {result.recipe}: {result.name}"
    place = "" if result.passed else f" ({result.where})"
    return "\n".join(map(one_line, [first + place, *(f"        {difference}" for difference in result.differences)]))


def result_json(result: Result) -> dict[str, Any]:
    """How a self-test ended, for programs."""
    return {"recipe": result.recipe, "name": result.name, "line": result.where.line, "passed": result.passed, "differences": list(result.differences)}
