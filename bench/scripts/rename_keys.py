"""The loop that a rename needs at least: `rename_keys.py CHECKPOINT RULES`, where RULES is a JSON list of pattern and replacement."""

import json
import re
import sys
from pathlib import Path

from safetensors import safe_open

rules = json.loads(Path(sys.argv[2]).read_text())
with safe_open(sys.argv[1], "np") as source:
    names = {}
    for key in source.keys():  # noqa: SIM118
        new = key
        for pattern, to in rules:
            new = re.sub(pattern, to, new, count=1)
        names[key] = new
assert len(set(names.values())) == len(names)
