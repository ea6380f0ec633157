"""Whole operations on checkpoints of one to two GB, each beside what a user would do instead; the outputs of all sides are flushed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.measure import SURGERY, Case, Comparison, Setting, compare, run
from bench.models import LAYERS, bert, gpt, llama, write_llama_config, write_model
from bench.peers import RECIPES, flushed, mergekit, script
from bench.tables import Findings, Goal, at_least, at_most, comparison_table, inverse, ratio_table

CP, NEVER = "cp + sync", "cp --reflink=never + sync"
NUMPY, TORCH = "safetensors + numpy", "safetensors + torch"
READER, SAVER = "TensorFlow's reader", "TensorFlow's Saver"
TILED, IN_PLACE = "tiled numpy", "surgery rename --in-place"
SURGERY_RUN = "surgery run"
_SOURCE_SHARDS, _OUTPUT_SHARDS = 6, 3


def operations(setting: Setting) -> Findings:
    """All operations, the table of their ratios, and the goals for them."""
    models, work = setting.folder / "models", setting.folder / "work"
    work.mkdir(exist_ok=True)
    write_models(models, work, setting.size)
    compared = []
    for title, sources, cases in _operations(models, work):
        if not setting.only or title in setting.only:
            paths = [models / source for source in sources]
            compared.append(compare(title, [*cases, *copies(*sources)], work, setting.runs, paths))
    tables = [line for comparison in compared for line in comparison_table(comparison, CP)]
    return Findings([*tables, *ratio_table(compared, CP)], _goals({comparison.title: comparison for comparison in compared}))


def write_models(models: Path, work: Path, size: float) -> None:
    """The sources: 1.3 GB of Llama in bfloat16, whole and in shards, 1.6 GB in float32, 1.2 GB of GPT, 0.6 GB of BERT for TensorFlow."""
    whole, half = llama(size), llama(size, LAYERS // 2)
    for name, shapes, code in (("llama-bf16", whole, "BF16"), ("llama-f32", half, "F32"), ("gpt", gpt(size), "BF16"), ("bert", bert(size), "F32")):
        write_model(models / name / "model.safetensors", shapes, code)
    source, shards = models / "llama-bf16" / "model.safetensors", models / "llama-sharded"
    run(surgery("to_tf.yaml"), work)
    run(surgery("reshard.yaml", source=str(source), target=str(shards), shard_size=f"{source.stat().st_size // _SOURCE_SHARDS}"), work)
    write_llama_config(models / "llama-bf16", whole)
    write_llama_config(models / "llama-f32", half)
    write_llama_config(shards, whole)


def surgery(recipe: str, **params: str) -> list[str]:
    """The command that runs a recipe of `bench/recipes`."""
    return [SURGERY, "run", "--json", str(RECIPES / recipe), *(word for name, value in params.items() for word in ("-p", f"{name}={value}"))]


class _Operation(NamedTuple):
    """Its name, the files below `models` that it reads, and who can do it beside `cp`."""

    title: str
    sources: Sequence[str]
    cases: Sequence[Case]


def _operations(models: Path, work: Path) -> Iterator[_Operation]:
    llama_bf16, llama_f32, gpt = ["llama-bf16/model.safetensors"], ["llama-f32/model.safetensors"], ["gpt/model.safetensors"]
    bundle = ["bert/model.ckpt.data-00000-of-00001"]
    shards = [f"llama-sharded/{path.name}" for path in sorted((models / "llama-sharded").glob("*.safetensors"))]
    nbytes = (models / llama_bf16[0]).stat().st_size
    in_place = _in_place(models / llama_bf16[0], work / "place.safetensors")
    output = nbytes // _OUTPUT_SHARDS
    resharded = mergekit("sharded", f"--out-shard-size {output}")
    yield _Operation("rename", llama_bf16, [_surgery("rename"), in_place, *_scripts("rename"), mergekit("whole")])
    yield _Operation("drop half", llama_bf16, [_surgery("drop_half"), *_scripts("drop_half"), mergekit("drop_half")])
    yield _Operation("cast", llama_f32, [_surgery("cast"), *_scripts("cast"), mergekit("cast"), _tiled("cast")])
    yield _Operation("transpose", llama_f32, [_surgery("transpose"), *_scripts("transpose"), _tiled("transpose")])
    yield _Operation("split qkv", gpt, [_surgery("split_qkv"), *_scripts("split_qkv")])
    yield _Operation("TF → safetensors", bundle, [_surgery("to_safetensors"), _reader(), _saver()])
    yield _Operation("TF rename", bundle, [_surgery("rename_tf"), _saver()])
    yield _Operation("merge of two", [*llama_bf16, *gpt], [_surgery("merge"), *_scripts("merge")])
    yield _Operation("reshard", shards, [_surgery("reshard", shard_size=str(output)), *_scripts("reshard", flush="out/*"), resharded])


def _surgery(operation: str, **params: str) -> Case:
    return Case(SURGERY_RUN, surgery(f"{operation}.yaml", **params))


def copies(*sources: str) -> list[Case]:
    """`cp` of files below `models`, as it is and without any help of the file system."""
    outputs = " ".join(f"copy.{number}" for number in range(len(sources)))
    cases = []
    for name, program in ((CP, "cp"), (NEVER, "cp --reflink=never")):
        commands = " && ".join(f"{program} '../models/{source}' copy.{number}" for number, source in enumerate(sources))
        cases.append(Case(name, flushed(commands, outputs)))
    return cases


def _scripts(operation: str, flush: str = "out.safetensors") -> list[Case]:
    return [
        script(NUMPY, "with_safetensors.py", f"numpy {operation}", "safetensors", flush=flush),
        script(TORCH, "with_safetensors.py", f"torch {operation}", "safetensors", "torch", flush=flush),
    ]


def _reader() -> Case:
    return script(READER, "with_tensorflow.py", "to_safetensors", "tensorflow", "safetensors")


def _saver() -> Case:
    return script(SAVER, "with_tensorflow.py", "rename", "tensorflow", flush="out.ckpt.*")


def _tiled(operation: str) -> Case:
    return script(TILED, "tiled_numpy.py", operation, flush="")


def _in_place(source: Path, copy: Path) -> Case:
    command = [SURGERY, "rename", copy.name, "--in-place", "--sub", "^model", "net"]
    return Case(IN_PLACE, command, before=lambda: shutil.copyfile(source, copy))


def _goals(of: dict[str, Comparison]) -> list[Goal]:
    goals = []
    if "rename" in of:
        goals.append(at_most(f"rename / {CP}", 1.05, of["rename"].ratio(SURGERY_RUN, CP)))
    for operation, compared in ((name, of[name]) for name in ("cast", "transpose") if name in of):
        best = compared.fastest((NUMPY, TORCH))
        goals += [
            at_least(f"{operation}: times faster than {best}", 2, inverse(compared.ratio(SURGERY_RUN, best))),
            at_most(f"{operation} / {TILED}", 1.3, compared.ratio(SURGERY_RUN, TILED)),
        ]
    if "TF → safetensors" in of:
        converted = of["TF → safetensors"]
        best = converted.fastest((READER, SAVER))
        goals.append(at_least(f"TF → safetensors: times faster than {best}", 3, inverse(converted.ratio(SURGERY_RUN, best))))
    return goals
