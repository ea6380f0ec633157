"""The Python face: `open` a checkpoint, `plan` a recipe, `Plan.run` it. The command line is made of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike, cpu_count, environ, fspath
from typing import TYPE_CHECKING, Any

from surgery.errors import NotFoundError, SurgeryError
from surgery.expr import Expr, Read, evaluate
from surgery.files import LocalDisk, Sources
from surgery.formats.base import Indexed
from surgery.library import Source, find
from surgery.regions import whole
from surgery.tensors import TensorSpec

if TYPE_CHECKING:
    from surgery.execute import Report
    from surgery.expr import Array
    from surgery.logical import LogicalPlan
    from surgery.probe import Facts
    from surgery.recipe import Recipe
    from surgery.round_trip import WayBack
    from surgery.steps.base import Catalog
    from surgery.table import Table
    from surgery.tasks import PhysicalPlan
    from surgery.work import Progress

DEFAULT_MEMORY = 512 << 20


class LazyTensor:
    """A tensor of a checkpoint whose values are read when they are asked for."""

    __slots__ = ("_read", "expr", "key")

    def __init__(self, key: str, expr: Expr, read: Read) -> None:
        self.key = key
        self.expr = expr
        self._read = read

    @property
    def spec(self) -> TensorSpec:
        """Element type and shape."""
        return self.expr.spec

    @property
    def dtype(self) -> str:
        """Name of the element type."""
        return self.expr.spec.dtype.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes; () for a scalar."""
        return self.expr.spec.shape

    def numpy(self) -> Array:
        """All values: bfloat16 and its kin as ml_dtypes, strings as an object array of bytes. Checksums that the format keeps are verified.

        Raises:
            SourceError: the file is damaged, gone or changed.
            UnsupportedFeature: the type has no array form.
        """
        from surgery.errors import UnsupportedFeature
        from surgery.verify import CheckedReader

        try:
            return evaluate(self.expr, whole(self.shape), CheckedReader(self.key, self.expr, self._read).read)
        except TypeError:
            raise UnsupportedFeature(
                f"`{self.key}` is {self.dtype}, which has no array form", help="it can be renamed and saved in its own format"
            ) from None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The values, so that numpy takes a lazy tensor for an array (`copy=False` cannot be had: they are read)."""
        if copy is False:
            raise ValueError("a lazy tensor is read into a new array")
        values = self.numpy()
        return values if dtype is None else values.astype(dtype)

    def __repr__(self) -> str:
        return f"<{self.key}: {self.spec}>"


class Checkpoint(Mapping[str, LazyTensor]):
    """An open checkpoint: key → lazy tensor, in the order of the data. Close it, or use it in a `with`."""

    def __init__(self, indexed: Indexed) -> None:
        self.indexed = indexed
        self._sources = Sources()

    @property
    def format(self) -> str:
        """Name of the format."""
        return self.indexed.format

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the format keeps beside tensors."""
        return self.indexed.metadata

    def __getitem__(self, key: str) -> LazyTensor:
        try:
            return LazyTensor(key, self.indexed.tensors[key], self._sources.read)
        except KeyError:
            raise MissingKey(key, self.indexed) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.indexed.tensors)

    def __len__(self) -> int:
        return len(self.indexed.tensors)

    def __contains__(self, key: object) -> bool:
        return key in self.indexed.tensors

    def close(self) -> None:
        """Close the files."""
        self._sources.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.format} checkpoint {self.indexed.location}: {len(self):,} tensors>"


class MissingKey(NotFoundError, KeyError):
    """`Key d not found in checkpoint`; a KeyError too, so that `Mapping.get` and `in` work as everywhere."""

    def __init__(self, key: str, indexed: Indexed) -> None:
        from surgery.keys import near_names

        close = near_names(key, indexed.tensors)
        super().__init__(
            f"Key {key} not found in checkpoint",
            sentence=True,
            notes=[f"{indexed.location} has {len(indexed.tensors):,} keys"],
            help=f"near names: {', '.join(close)}" if close else "list the keys with `surgery inspect`",
            data={"keys": [key], "searched": indexed.location, "near": close},
        )


class Plan:
    """A validated plan: everything that can be wrong has been looked for, and no byte has moved."""

    def __init__(self, recipe: Recipe, facts: Facts, logical: LogicalPlan, physical: PhysicalPlan, jobs: int, strict: bool = False) -> None:
        self.recipe = recipe
        self.facts = facts
        self.logical = logical
        self.physical = physical
        self.jobs = jobs
        self.strict = strict

    @property
    def outputs(self) -> list[Table]:
        """For each save the table it writes: key → entry with `.spec`."""
        return [output.table for output in self.logical.outputs]

    @property
    def nbytes(self) -> int:
        """Bytes of tensors in all outputs."""
        return sum(output.nbytes for output in self.physical.outputs)

    def run(self, *, resume: bool = False, verify: bool = False, digest: bool = False, progress: Progress | None = None) -> Report:
        """Write the outputs, each complete or not at all, with their manifests.

        `resume` goes on from what an earlier run of the same plan finished before it was killed, and keeps what this one finishes if it
        fails. `verify` checks stored checksums even where no byte is moved; `digest` puts the SHA-256 of every file into the manifests.

        Raises:
            SurgeryError: a source is damaged or changed, the disk is full, a value check fails; nothing is written then.
        """
        from surgery.execute import apply
        from surgery.manifest import Manifest
        from surgery.up_to_date import identity, request, stamps

        asked = request(self.recipe, strict=self.strict, digest=digest)
        found = self.facts.evidence
        carried = stamps({companion.path for output in self.physical.outputs for companion in output.companions})  # before they are read
        evidence = found._replace(files={**carried, **found.files})
        try:
            return apply(
                self.physical,
                lambda outputs: Manifest(asked, evidence, outputs).encode(),
                jobs=self.jobs,
                identity=identity(self.recipe, evidence, self.physical.block_bytes),
                resume=resume,
                verify=verify,
                digest=digest,
                progress=progress or (lambda nbytes: None),
            )
        except SurgeryError as error:
            for item in self.recipe.steps:
                if item.number == error.data.get("step"):
                    item.locate(error)
            raise

    def __str__(self) -> str:
        from surgery.report import plan_text

        return plan_text(self)


def open(path: str | PathLike[str], *, format: str | None = None) -> Checkpoint:
    """Open a checkpoint of any readable format; reads headers only.

    Raises:
        NotFoundError: there is nothing under this path.
        SourceError: the file is damaged or of no known format.
    """
    from surgery.probe import open_checkpoint

    return Checkpoint(open_checkpoint(fspath(path), LocalDisk(), format))


def plan(
    recipe: str | PathLike[str] | Source | Recipe,
    params: Mapping[str, Any] | None = None,
    *,
    texts: Mapping[str, str] | None = None,
    jobs: int | None = None,
    memory: int = DEFAULT_MEMORY,
    force: bool = False,
    strict: bool = False,
    verify_inverse: bool = False,
) -> Plan:
    """Plan a recipe: a path, a name of the library, a `Source`, or what `checked` gave. Reads headers only, changes nothing.

    `params` are typed values, `texts` values as the command line gives them. `memory` is the budget in bytes of all arrays
    together; `force` lets every save replace what exists; `strict` makes left-over tensors an error. With `verify_inverse` the run compares, before
    it commits, what the inverse recipe gives back with the sources.

    Raises:
        RecipeError: the recipe is wrong.
        SurgeryError: it does not fit these checkpoints. All faults of a phase come together in `others`.
    """
    from surgery.logical import plan as plan_logically
    from surgery.physical import lower
    from surgery.probe import probe
    from surgery.recipe import Recipe

    jobs = jobs or cpu_count() or 1
    loaded = recipe if isinstance(recipe, Recipe) else checked(recipe, params, texts=texts)
    facts = probe(loaded, LocalDisk())
    logical = plan_logically(loaded, facts.catalog)
    if strict and logical.left_over:
        raise _left_over(logical)
    if verify_inverse:
        logical = _proven(logical, facts.catalog)
    physical = lower(logical, facts.places, facts.holes, jobs=jobs, memory=memory, force=force)
    return Plan(loaded, facts, logical, physical, jobs, strict)


def way_back(logical: LogicalPlan, catalog: Catalog) -> WayBack:
    """The inverse of a plan: the recipe that the planned one names, or else one that is worked out. Raises SurgeryError where it does not fit."""
    from surgery.round_trip import named, written

    source = _named_inverse(logical)
    return named(logical, source) if source else written(logical, catalog)


def _named_inverse(logical: LogicalPlan) -> Source | None:
    from posixpath import dirname

    from surgery import library

    document = logical.recipe.document
    name = document.data.get("inverse")
    return library.find(name, dirname(document.name)) if name else None


def _proven(logical: LogicalPlan, catalog: Catalog) -> LogicalPlan:
    """The plan with the comparisons that prove its inverse, and a note on what is proven. Raises SurgeryError where it is none."""
    from surgery.round_trip import proven

    proof, found = proven(logical, catalog, _named_inverse(logical))
    return logical._replace(checks=(*logical.checks, *proof.checks), notes=(*logical.notes, f"{found}: {proof}"))


def checked(
    recipe: str | PathLike[str] | Source,
    params: Mapping[str, Any] | None = None,
    *,
    texts: Mapping[str, str] | None = None,
    environment: Mapping[str, str] = environ,
) -> Recipe:
    """A recipe with the values of its parameters, checked as far as that can be without a checkpoint.

    Raises:
        RecipeError: the recipe is wrong, or a parameter has no value.
        SourceError: a file that a value is to be read from is damaged.
    """
    from surgery.defaults import Storage
    from surgery.recipe import load
    from surgery.witness import Witness

    def metadata(path: str) -> Mapping[str, str]:
        from surgery.probe import open_checkpoint

        return open_checkpoint(path, disk).metadata

    source = recipe if isinstance(recipe, Source) else find(fspath(recipe))
    disk = Witness(LocalDisk())
    loaded = load(source.text, source.name, params, texts=texts, environment=environment, storage=Storage(disk, metadata))
    return loaded._replace(evidence=disk.evidence)


def _left_over(logical: LogicalPlan) -> SurgeryError:
    from surgery.errors import PlanError, listed, plural

    keys = [key for _, key in logical.left_over]
    return PlanError(
        f"{plural(len(keys), 'loaded tensor')} {'is' if len(keys) == 1 else 'are'} neither saved nor dropped",
        code="left-over",
        notes=[listed(keys, 20)],
        help="`drop` them on purpose, or save them; without --strict this is only a note",
        data={"keys": keys},
    )
