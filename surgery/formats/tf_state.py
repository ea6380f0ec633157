"""The text file `checkpoint`, in which TensorFlow notes a folder's newest checkpoint and the older ones.

Source: TensorFlow, python/checkpoint/checkpoint_management.py; protobuf's text format, which is accepted in full.
"""

from __future__ import annotations

from typing import NamedTuple

FILE_NAME = "checkpoint"
MOST_BYTES = 16 << 20


class State(NamedTuple):
    """What the file says: the newest prefix, all of them from old to new, and seconds since the epoch for each.

    Paths are as written: relative ones are meant relative to the file's folder. `timestamps` is empty, and
    `last_preserved` None, where the file has none.
    """

    newest: str
    paths: tuple[str, ...]
    timestamps: tuple[float, ...] = ()
    last_preserved: float | None = None


def parse(text: bytes) -> State | None:
    """The state in a file, or None where TensorFlow would ignore the file: other text, an unknown field, broken UTF-8."""
    from google.protobuf import text_format

    from surgery.formats.tf_messages_pb2 import CheckpointState

    try:
        message = text_format.Merge(text.decode("utf-8"), CheckpointState())
    except (text_format.ParseError, ValueError):
        return None
    return State(
        message.model_checkpoint_path,
        tuple(message.all_model_checkpoint_paths),
        tuple(message.all_model_checkpoint_timestamps),
        message.last_preserved_timestamp or None,
    )


def is_state(text: bytes) -> bool:
    """Whether this is such a file, and not another one by the same name. An empty one is: it holds nothing that could be lost."""
    return parse(text) is not None


def write(state: State) -> bytes:
    """The file as TensorFlow writes it: one field a line, double quotes, other scripts as UTF-8.

    Raises:
        UnicodeEncodeError: a path is not UTF-8; the format cannot hold it.
    """
    from google.protobuf import text_format

    from surgery.formats.tf_messages_pb2 import CheckpointState

    message = CheckpointState(
        model_checkpoint_path=state.newest,
        all_model_checkpoint_paths=state.paths,
        all_model_checkpoint_timestamps=state.timestamps,
        last_preserved_timestamp=state.last_preserved or 0.0,
    )
    return text_format.MessageToString(message, as_utf8=True).encode()


def with_newest(previous: bytes | None, name: str) -> bytes:
    """The file after a save under `name`: it becomes the newest, whatever stood there before stays as an older one.

    A name that is already listed moves to the end, its timestamp with it; a new one gets the timestamp of the newest so far, since the
    output must not depend on the clock. Timestamps that do not fit the paths in number go, since TensorFlow refuses such a
    file. A file that cannot be parsed is replaced.
    """
    state = parse(previous) if previous is not None else None
    if state is None:
        return write(State(name, (name,)))
    paths = state.paths if not state.newest or state.newest in state.paths else (*state.paths, state.newest)
    order = [number for number, path in enumerate(paths) if path != name] + [number for number, path in enumerate(paths) if path == name][:1]
    kept = tuple(paths[number] for number in order)
    if name not in kept:
        kept = (*kept, name)
    if not state.timestamps or len(state.timestamps) != len(paths):
        return write(State(name, kept))
    stamps = tuple(state.timestamps[number] for number in order)
    return write(State(name, kept, (*stamps, max(stamps))[: len(kept)], state.last_preserved))
