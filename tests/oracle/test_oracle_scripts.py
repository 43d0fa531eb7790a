"""Scripts at random against what redis-server 7.0.15 answered them: the language, and the libraries beside it."""

from __future__ import annotations

import json
from pathlib import Path

from kache.shard.shard import Shard

from . import script_vectors

ANSWERS = Path(__file__).parent.parent / "data" / "scripts-redis-7.0.15.json"


def test_every_script_is_answered_as_by_a_real_server() -> None:
    shard = Shard(now_ms=1_700_000_000_000)
    for words in script_vectors.DATA:
        shard.execute(list(words))
    answers = json.loads(ANSWERS.read_text())
    texts = list(script_vectors.scripts())
    assert len(texts) == len(answers) == script_vectors.COUNT
    for text, answer in zip(texts, answers, strict=True):
        found = shard.execute([b"EVAL", text.encode("latin-1"), b"0"]).decode("latin-1")
        assert found == answer, text
