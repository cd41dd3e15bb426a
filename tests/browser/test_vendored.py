"""What these tests have from others."""

import hashlib
import re
from pathlib import Path

HERE = Path(__file__).parent


def test_what_others_made_is_as_they_made_it():
    listed = re.findall(r"^([0-9a-f]{64})  (\S+)", (HERE / "VENDORED").read_text("utf-8"), re.MULTILINE)
    assert {name: digest for digest, name in listed} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in HERE.glob("axe-core*")
    }
    assert len(listed) == 3
