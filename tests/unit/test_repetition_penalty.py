"""A repetition penalty (STAR-1's protocol) means in our engine what it means in transformers, row by row; without one nothing changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_generate_swap import swap_weights
from tiny_training import make_model
from transformers import AutoModelForCausalLM

from advchain import chat
from advchain.generate.endpoint_engine import _decoding
from advchain.generate.engine import Request
from advchain.generate.run import Place, _key
from advchain.generate.sampling import penalise
from advchain.generate.transformers_engine import TransformersEngine
from advchain.models import load_model_card, load_tokenizer
from advchain.specs import Sampling

NUM_TOKENS = 24
PROMPTS = ("Say it again and again.", "Say it again and again.", "One two three, one two three.", "Why?")


def test_logits_by_hand() -> None:
    seen = torch.tensor([True, True, False, False])
    assert penalise(torch.tensor([2.0, -2.0, 3.0, -3.0]), seen, 2.0).tolist() == [1.0, -4.0, 3.0, -3.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    made = make_model(tmp_path_factory.mktemp("models") / "tiny")
    swap_weights(made)  # livelier ones: as made, the model repeats one token whatever it is told
    return made


def test_it_is_the_penalty_of_transformers(folder: Path) -> None:
    """Greedy text of rows with different penalties in one batch, against `generate` of the library, one row at a time."""
    family, tokenizer = chat.family("generic"), load_tokenizer(folder)
    penalties = (1.0, 1.2, 1.7, 1.2)
    settings = {"do_sample": False, "max_new_tokens": NUM_TOKENS, "pad_token_id": 0}
    ids = [tuple(chat.encode_prompt(family, tokenizer, prompt)) for prompt in PROMPTS]
    wanted = [Sampling(temperature=0, max_new_tokens=NUM_TOKENS, repetition_penalty=penalty) for penalty in penalties]
    requests = [Request(str(n), str(n), 0, n, prompt, sampling) for n, (prompt, sampling) in enumerate(zip(ids, wanted, strict=True))]
    engine = TransformersEngine(folder, family, "fp32", 16384)
    texts = {done.request.key: done.text for step in engine.generate(requests) for done in step}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for number, (prompt, penalty) in enumerate(zip(ids, penalties, strict=True)):
        with torch.inference_mode():
            made = model.generate(torch.tensor([prompt]), repetition_penalty=penalty, eos_token_id=sorted(engine.stops), **settings)
        ids_made = made[0, len(prompt) :].tolist()
        assert texts[str(number)] == tokenizer.decode([token for token in ids_made if token not in engine.stops], skip_special_tokens=False)
    assert texts["0"] != texts["1"], "the penalty must show"


def test_without_one_keys_and_calls_are_as_they_were(folder: Path) -> None:
    place = Place(load_model_card(folder), chat.family("generic"), None, 1 << 20, "transformers", "fp32")
    plain, same, other = Sampling(), Sampling(repetition_penalty=1.0), Sampling(repetition_penalty=1.2)
    assert _key(place, (1, 2), plain, 0, 0) == _key(place, (1, 2), same, 0, 0) != _key(place, (1, 2), other, 0, 0)
    assert "repetition_penalty" not in _decoding(Request("k", "i", 0, 0, (1,), plain))
    assert _decoding(Request("k", "i", 0, 0, (1,), other))["repetition_penalty"] == 1.2
