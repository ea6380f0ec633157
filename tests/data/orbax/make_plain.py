"""Makes `plain` of `ocdbt` beside it: the same kind of database with small nodes that are not compressed. Needs: tensorstore 0.1.86.

Damage done to compressed nodes ends in the decompressor; that done to these gets into the parser.
"""

import json
import shutil
from pathlib import Path

import tensorstore as ts

HERE = Path(__file__).parent
WANTED = ("array", "list.", "params.", "scalar", "größe", "types.bool", "types.bfloat16", "types.complex64")
SMALL = {"compression": None, "max_decoded_node_bytes": 300, "max_inline_value_bytes": 30}

shutil.rmtree(HERE / "plain", ignore_errors=True)
source = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{HERE}/ocdbt/"}).result()
target = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{HERE}/plain/", "config": SMALL}).result()
with ts.Transaction() as transaction:
    for key in source.list().result():
        if key.decode().startswith(WANTED):
            target.with_transaction(transaction).write(key, source.read(key).result().value).result()

told = json.loads((HERE / "ocdbt" / "_METADATA").read_text())
kept = {name: value for name, value in told["tree_metadata"].items() if ".".join(key["key"] for key in value["key_metadata"]).startswith(WANTED)}
(HERE / "plain" / "_METADATA").write_text(json.dumps(told | {"tree_metadata": kept}, separators=(",", ":")))
shutil.copy(HERE / "ocdbt" / "_CHECKPOINT_METADATA", HERE / "plain")
