"""The model with its loss inside: cross-entropy summed over supervised positions, never with all logits at once.

A plain loss holds logits of every position three times (fp32 copy and gradient): 11.6 GiB for 8,192 tokens of Qwen3. Here only
the hidden states of supervised positions reach the head, in chunks, and each chunk's gradient is taken at once, so that its
logits are freed and the head is not run again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advchain.errors import EngineError
from advchain.train.encode import Encoded

CHUNK_ELEMENTS = 64 * 2**20  # logits in flight: 256 MiB in fp32


class Batch(NamedTuple):
    """One micro-batch. `positions` index the flattened (rows * width) tokens whose next token, `labels`, is supervised."""

    ids: Tensor
    positions: Tensor
    labels: Tensor


def collate(rows: Sequence[Encoded], pad_id: int) -> Batch:
    """Pad rows on the right to the longest. With a causal model no supervised position sees the padding, so no mask is needed.

    Returns:
        ids (rows, width), positions (n,), labels (n,), all int64.
    """
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    positions, labels = [], []
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row.ids)
        learnt = [place for place in range(1, len(row)) if row.supervised[place]]
        positions += [number * width + place - 1 for place in learnt]
        labels += [row.ids[place] for place in learnt]
    return Batch(ids, torch.tensor(positions, dtype=torch.int64), torch.tensor(labels, dtype=torch.int64))


class _ChunkedCrossEntropy(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """Sum of -log softmax(hidden @ weight.T)[label], in fp32, with both gradients computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int) -> Tensor:
        grad_hidden, grad_weight = torch.empty_like(hidden), None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            loss, gradient = _loss_and_gradient(torch.mm(hidden[part], weight.T), labels[part])
            total += loss
            grad_hidden[part] = torch.mm(gradient, weight)
            product = torch.mm(gradient.T, hidden[part])
            if len(labels) > chunk:  # several chunks add up in fp32
                product = product.float()
            grad_weight = product if grad_weight is None else grad_weight.add_(product)
        ctx.save_for_backward(grad_hidden, grad_weight if grad_weight is not None else torch.zeros_like(weight))
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(outputs[0]), grad_weight.mul_(outputs[0]).to(grad_hidden.dtype), None, None


def _loss_and_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss (fp32) and softmax minus one-hot in the dtype of `logits`."""
    dtype, logits = logits.dtype, logits.float()
    log_total = torch.logsumexp(logits, dim=-1, keepdim=True)
    column = labels.unsqueeze(1)
    loss = (log_total - logits.gather(1, column)).sum()
    gradient = logits.sub_(log_total).exp_()
    gradient.scatter_add_(1, column, gradient.new_full((len(labels), 1), -1.0))
    return loss, gradient.to(dtype)


class HeadLoss(nn.Module):  # type: ignore[misc]
    """The model's output head with the loss on top; a ZeRO-3 leaf, so that the head's weight is whole while it runs."""

    def __init__(self, head: nn.Linear, chunk_elements: int = CHUNK_ELEMENTS) -> None:
        super().__init__()
        self.head = head
        self.chunk_elements = chunk_elements

    def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return the summed loss, fp32 scalar. hidden: (n, width), labels: (n,)."""
        chunk = max(1, self.chunk_elements // self.head.weight.shape[0])
        loss: Tensor = _ChunkedCrossEntropy.apply(hidden, self.head.weight, labels, chunk)
        return loss


class SupervisedLoss(nn.Module):  # type: ignore[misc]
    """A causal language model whose forward pass is its training loss.

    Raises:
        EngineError: the model's head is not a plain linear map.
    """

    def __init__(self, model: Any, chunk_elements: int = CHUNK_ELEMENTS) -> None:
        super().__init__()
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear) or head.bias is not None or getattr(model.config, "final_logit_softcapping", None):
            raise EngineError(f"{type(model).__name__} has an output head that advchain/train/loss.py does not know (bias or soft-capping).")
        self.model = model
        self.head_loss = HeadLoss(head, chunk_elements)

    def forward(self, ids: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        """Return the loss summed over supervised tokens, fp32 scalar; zero with a graph when there is none."""
        hidden = self.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        return self.head_loss(hidden.flatten(0, 1).index_select(0, positions), labels)
