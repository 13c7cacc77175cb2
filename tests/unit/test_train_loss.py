"""The loss of packed rows, in chunks, equals plain PyTorch on each row: value and gradient."""

from __future__ import annotations

import pytest
import torch
from tiny_training import tiny_model

from advchain.errors import EngineError
from advchain.train.attention import NAME
from advchain.train.encode import Encoded
from advchain.train.loss import SupervisedLoss, pack


def rows() -> list[Encoded]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for number, length in enumerate((7, 12, 5)):
        ids = torch.randint(0, 50, (length,), generator=generator).tolist()
        found.append(Encoded(str(number), ids, [place >= 3 and place != 5 for place in range(length)]))
    return found


def plain_loss(model: torch.nn.Module, row: Encoded) -> torch.Tensor:
    """transformers' own loss of one row by itself: a mean over its labels."""
    labels = torch.tensor([[token if keep and place else -100 for place, (token, keep) in enumerate(zip(row.ids, row.supervised, strict=True))]])
    return model(input_ids=torch.tensor([row.ids]), labels=labels).loss * row.num_supervised


@pytest.mark.parametrize("chunk_elements", [264, 2000, None])
@pytest.mark.parametrize("multiple", [1, 32])
def test_equals_plain_pytorch(chunk_elements: int | None, multiple: int) -> None:
    model, reference = tiny_model(NAME), tiny_model("eager")
    loss = SupervisedLoss(model, chunk_elements)(*pack(rows(), multiple))
    (loss * 0.5).backward()
    expected = torch.stack([plain_loss(reference, row) for row in rows()]).sum()
    (expected * 0.5).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    for (name, mine), (_, theirs) in zip(model.named_parameters(), reference.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6 * float(theirs.grad.abs().max()), msg=name)


@pytest.mark.parametrize("chunk_elements", [264, None])
def test_a_frozen_head_gets_no_gradient_and_changes_none(chunk_elements: int | None) -> None:
    frozen, free = tiny_model(NAME), tiny_model(NAME)
    for model in (frozen, free):  # a head of its own, or the embedding's gradient would be in it
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    frozen.lm_head.weight.requires_grad = False
    for model in (frozen, free):
        SupervisedLoss(model, chunk_elements)(*pack(rows())).backward()
    assert frozen.lm_head.weight.grad is None and free.lm_head.weight.grad is not None
    gradients = dict(free.named_parameters())
    assert all(torch.equal(weight.grad, gradients[name].grad) for name, weight in frozen.named_parameters() if weight.requires_grad)


def test_equals_padded_rows_under_a_mask() -> None:
    """The padded batch of other trainers, in fp32: the same loss to 1e-6."""
    reference, batch = tiny_model("sdpa"), rows()
    width = max(map(len, batch))
    ids, mask, labels = torch.zeros(3, width, dtype=torch.int64), torch.zeros(3, width, dtype=torch.int64), torch.full((3, width), -100)
    for number, row in enumerate(batch):
        ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row.ids), 1
        labels[number, : len(row)] = torch.tensor([token if keep else -100 for token, keep in zip(row.ids, row.supervised, strict=True)])
    expected = reference(input_ids=ids, attention_mask=mask, labels=labels).loss
    packed = SupervisedLoss(tiny_model(NAME))(*pack(batch)) / sum(row.num_supervised for row in batch)
    assert packed.item() == pytest.approx(expected.item(), rel=1e-6)


def test_without_gradients_the_value_is_the_same() -> None:
    model = SupervisedLoss(tiny_model(NAME), chunk_elements=2000)
    with torch.no_grad():
        value = model(*pack(rows()))
    torch.testing.assert_close(value, model(*pack(rows())), rtol=1e-6, atol=0)
    with torch.no_grad():
        assert model(*pack([])).item() == 0.0


def test_a_pack_counts_exactly_the_supervised_tokens() -> None:
    batch = pack(rows())
    assert batch.ids.shape == (1, 24) and batch.bounds.tolist() == [0, 7, 19, 24] and batch.longest == 12
    assert len(batch.labels) == sum(row.num_supervised for row in rows())
    assert batch.labels.tolist()[:3] == [rows()[0].ids[place] for place in (3, 4, 6)]
    assert batch.positions.tolist()[:3] == [2, 3, 5] and batch.positions.tolist()[3] == 7 + 2


def test_nothing_supervised_is_zero_with_a_graph() -> None:
    model = tiny_model(NAME)
    loss = SupervisedLoss(model)(*pack([]))
    loss.backward()
    assert loss.item() == 0.0 and all(not p.grad.any() for p in model.parameters())


def test_a_head_with_bias_is_refused() -> None:
    model = tiny_model()
    model.lm_head = torch.nn.Linear(64, 264, bias=True)
    with pytest.raises(EngineError, match="output head"):
        SupervisedLoss(model)
