"""The chunked loss equals the plain one, value and gradient, whatever the padding and the chunk."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from advchain.errors import EngineError
from advchain.train.encode import Encoded
from advchain.train.loss import SupervisedLoss, collate


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, tie_word_embeddings=True)
    )


def rows() -> list[Encoded]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for number, length in enumerate((7, 12, 5)):
        ids = torch.randint(0, 50, (length,), generator=generator).tolist()
        found.append(Encoded(str(number), ids, [place >= 3 and place != 5 for place in range(length)]))
    return found


def plain_loss(model: LlamaForCausalLM, row: Encoded) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([row.ids])).logits[0, :-1].float()
    labels = torch.tensor([token if keep else -100 for token, keep in zip(row.ids[1:], row.supervised[1:], strict=True)])
    return functional.cross_entropy(logits, labels, reduction="sum")


@pytest.mark.parametrize("chunk_elements", [50, 200, 10**6])
def test_equals_the_plain_loss(chunk_elements: int) -> None:
    model, reference = tiny(), tiny()
    loss = SupervisedLoss(model, chunk_elements)(*collate(rows(), pad_id=0))
    (loss * 0.5).backward()
    expected = torch.stack([plain_loss(reference, row) for row in rows()]).sum()
    (expected * 0.5).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-5)
    for (name, mine), (_, theirs) in zip(model.named_parameters(), reference.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_collate_counts_exactly_the_supervised_tokens() -> None:
    batch = collate(rows(), pad_id=0)
    assert batch.ids.shape == (3, 12)
    assert len(batch.labels) == sum(row.num_supervised for row in rows())
    assert batch.labels.tolist()[:3] == [rows()[0].ids[place] for place in (3, 4, 6)]


def test_nothing_supervised_is_zero_with_a_graph() -> None:
    model = tiny()
    loss = SupervisedLoss(model)(*collate([Encoded("", [1], [False])], pad_id=0))
    loss.backward()
    assert loss.item() == 0.0 and all(not p.grad.any() for p in model.parameters())


def test_a_head_with_bias_is_refused() -> None:
    model = tiny()
    model.lm_head = torch.nn.Linear(32, 50, bias=True)
    with pytest.raises(EngineError, match="output head"):
        SupervisedLoss(model)
