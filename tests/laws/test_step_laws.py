"""Whole recipes against numpy: random steps on random small tensors, under any budget and number of threads."""

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from step_model import FLOATS, Draft, RefusedError, read_safetensors, write_safetensors

import surgery
from surgery.library import Source
from surgery.round_trip import prove, written

BUDGETS = [1 << 10, 1 << 14, 1 << 20, 1 << 28]


def drafted(random, folder):
    """A draft, its tensors as they were, and whether its last step has to be refused; the sources are written."""
    draft = Draft(random)
    sources = draft.begin()
    write_safetensors(folder / "in.safetensors", sources)
    try:
        for _ in range(random.randint(1, 8)):
            draft.step()
    except RefusedError:
        return draft, sources, True
    return draft, sources, False


def recipe(draft, folder):
    load, save = {"load": {"path": str(folder / "in.safetensors")}}, {"save": {"path": str(folder / "out.safetensors"), "overwrite": "replace"}}
    text = yaml.safe_dump({"surgery": 1, "steps": [load, *draft.steps, save]}, sort_keys=False)
    note(text)
    return Source(text, "recipe.yaml")


def same(one, other):
    """Whether arrays have the same bits; of NaN only that it is one."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.name not in FLOATS:
        return one.tobytes() == other.tobytes()
    nan = np.isnan(one.astype("f8"))
    return np.array_equal(nan, np.isnan(other.astype("f8"))) and np.where(nan, 0, one).tobytes() == np.where(nan, 0, other).tobytes()


@settings(max_examples=50)
@given(st.randoms(use_true_random=False), st.sampled_from([1, 2, 4]), st.sampled_from(BUDGETS))
def test_a_recipe_gives_what_numpy_gives(tmp_path_factory, random, jobs, memory):
    folder = tmp_path_factory.getbasetemp()
    draft, _, refused = drafted(random, folder)
    if refused:
        with pytest.raises(surgery.SurgeryError, match=r"^error\[(overflow|nan-cast)\]"):
            surgery.plan(recipe(draft, folder), jobs=jobs, memory=memory).run()
        return
    surgery.plan(recipe(draft, folder), jobs=jobs, memory=memory).run()
    made = read_safetensors(folder / "out.safetensors")
    assert set(made) == set(draft.table)
    assert [key for key, array in made.items() if not same(array, draft.table[key])] == []


@settings(max_examples=50)
@given(st.randoms(use_true_random=False))
def test_an_inverse_gives_back_each_tensor_that_it_does_not_call_rounded_or_missing(tmp_path_factory, random):
    folder = tmp_path_factory.getbasetemp()
    draft, sources, refused = drafted(random, folder)
    assume(not refused)
    plan = surgery.plan(recipe(draft, folder), verify_inverse=True)
    plan.run()
    way = written(plan.logical, plan.facts.catalog)
    proof = prove(plan.logical, way)
    told = {key for _, key in (*proof.rounded, *proof.missing)}
    assume(told < set(sources))
    surgery.plan(Source(way.text, "inverse.yaml"), {"target": str(folder / "back.safetensors")}, force=True).run()
    back = read_safetensors(folder / "back.safetensors")
    assert [key for key in sources if key not in told and (key not in back or back[key].tobytes() != sources[key].tobytes())] == []
    assert all(back[key].shape == sources[key].shape for key in back)


JUNK = [
    None,
    True,
    0,
    -1,
    7,
    1 << 70,
    1.5,
    "",
    "a",
    "(",
    "[",
    r"\1",
    "{i}",
    "*",
    "**",
    "zeros",
    "mean",
    "bool",
    "string",
    "x @ y",
    [],
    [0],
    [-1, -1],
    {},
]
"""Values for any option, of which some fit some."""


@settings(max_examples=50)
@given(st.randoms(use_true_random=False))
def test_a_recipe_with_a_wrong_option_runs_or_has_a_fault_with_a_place(tmp_path_factory, random):
    folder = tmp_path_factory.getbasetemp()
    draft, _, _ = drafted(random, folder)
    assume(draft.steps)
    ((_, options),) = random.choice(draft.steps).items()
    options[random.choice([*options, "axis", "where", "to", "match", "optional", "shape"])] = random.choice(JUNK)
    try:
        surgery.plan(recipe(draft, folder), force=True).run()
    except surgery.SurgeryError as fault:
        told = str(fault)
    else:
        told = "recipe.yaml: all is well"
    assert "recipe.yaml:" in told
