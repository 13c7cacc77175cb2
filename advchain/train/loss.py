"""The model with its loss inside: cross-entropy summed over supervised positions, never with all logits at once.

A plain loss holds logits of every position three times (fp32 copy and gradient): 11.6 GiB for 8,192 tokens of Qwen3. Here only
the hidden states of supervised positions reach the head, in chunks, and each chunk's gradient is taken at once, so that its
logits are freed and the head is not run again in the backward pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from advchain.errors import EngineError
from advchain.train.encode import Encoded

CHUNK_ELEMENTS = {"cpu": 64 * 2**20, "cuda": 160 * 2**20}  # logits in flight; on a GPU about 1,100 rows of Qwen3's: its products stay large
PACK_MULTIPLE = 256  # tokens: packs on a GPU are filled up to a multiple, so that a compiled model meets few shapes


class Batch(NamedTuple):
    """One pack: rows end to end. `positions` index the tokens whose next token, `labels`, is supervised."""

    ids: Tensor
    position_ids: Tensor
    bounds: Tensor
    longest: int
    positions: Tensor
    labels: Tensor

    def to(self, device: Any) -> Batch:
        """Return the batch on a device."""
        return Batch(*(part.to(device, non_blocking=True) if isinstance(part, Tensor) else part for part in self))


def pack(rows: Sequence[Encoded], multiple: int = 1) -> Batch:
    """Lay rows end to end; positions start from 0 in each. Filling, if any, is a row of its own without a label.

    Args:
        rows: none makes a pack of one unsupervised token.
        multiple: fill up to a multiple of so many tokens; `longest` is rounded up with it.

    Returns:
        ids (1, tokens) and position_ids (1, tokens) int64; bounds (rows + 1,) int32; positions (n,) and labels (n,) int64.
    """
    lengths = [len(row) for row in rows]
    filling = -sum(lengths) % multiple if rows else multiple
    lengths += [filling] if filling else []
    bounds = list(itertools.accumulate(lengths, initial=0))
    ids = torch.tensor([token for row in rows for token in row.ids] + [0] * filling)
    supervised = torch.tensor([learnt for row in rows for learnt in row.supervised] + [False] * filling)
    supervised[bounds[:-1]] = False  # nothing of its own row precedes a first token
    targets = supervised.nonzero().squeeze(1)
    return Batch(
        ids=ids.unsqueeze(0),
        position_ids=torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0),
        bounds=torch.tensor(bounds, dtype=torch.int32),
        longest=max(lengths) + -max(lengths) % multiple,
        positions=targets - 1,
        labels=ids[targets],
    )


class _ChunkedCrossEntropy(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """Sum of -log softmax(hidden @ weight.T)[label], in fp32, with both gradients computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int) -> Tensor:
        grad_hidden, learns = torch.empty_like(hidden), ctx.needs_input_grad[1]  # LoRA freezes the head
        grad_weight = torch.zeros_like(weight) if learns and not len(labels) else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            loss, gradient = _loss_and_gradient(torch.mm(hidden[part], weight.T), labels[part])
            total += loss
            grad_hidden[part] = torch.mm(gradient, weight)
            if not learns:
                continue
            product = torch.mm(gradient.T, hidden[part])
            if len(labels) > chunk:  # several chunks add up in fp32
                product = product.float()
            grad_weight = product if grad_weight is None else grad_weight.add_(product)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(outputs[0]).to(grad_hidden.dtype)
        return grad_hidden.mul_(outputs[0]), grad_weight, None, None


def _loss_and_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss (fp32) and softmax minus one-hot in the dtype of `logits`."""
    dtype, logits = logits.dtype, logits.float()
    log_total = torch.logsumexp(logits, dim=-1, keepdim=True)
    column = labels.unsqueeze(1)
    loss = (log_total - logits.gather(1, column)).sum()
    gradient = logits.sub_(log_total).exp_()
    gradient.scatter_add_(1, column, gradient.new_full((len(labels), 1), -1.0))
    return loss, gradient.to(dtype)


def _loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the summed loss of fp32 logits."""
    return functional.cross_entropy(logits, labels, reduction="sum")


class HeadLoss(nn.Module):  # type: ignore[misc]
    """The model's output head with the loss on top; a ZeRO-3 leaf, so that the head's weight is whole while it runs."""

    def __init__(self, head: nn.Linear, chunk_elements: int | None = None) -> None:
        super().__init__()
        self.head = head
        self.chunk_elements = chunk_elements

    def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return the summed loss, fp32 scalar. hidden: (n, width), labels: (n,)."""
        weight = self.head.weight
        chunk = max(1, (self.chunk_elements or CHUNK_ELEMENTS[weight.device.type]) // weight.shape[0])
        if not torch.is_grad_enabled():  # validation
            parts = zip(hidden.split(chunk), labels.split(chunk), strict=True)
            return sum((_loss_of(torch.mm(part, weight.T).float(), label) for part, label in parts), hidden.new_zeros((), dtype=torch.float32))
        loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, labels, chunk)
        return loss


class SupervisedLoss(nn.Module):  # type: ignore[misc]
    """A causal language model whose forward pass is its training loss.

    Raises:
        EngineError: the model's head is not a plain linear map.
    """

    def __init__(self, model: Any, chunk_elements: int | None = None) -> None:
        super().__init__()
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear) or head.bias is not None or getattr(model.config, "final_logit_softcapping", None):
            raise EngineError(f"{type(model).__name__} has an output head that advchain/train/loss.py does not know (bias or soft-capping).")
        self.model = model
        self.head_loss = HeadLoss(head, chunk_elements)

    def forward(self, ids: Tensor, position_ids: Tensor, bounds: Tensor, longest: int, positions: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a pack (see `Batch`) summed over supervised tokens, fp32 scalar; zero with a graph when there is none."""
        rows = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
        hidden = self.model.get_decoder()(input_ids=ids, position_ids=position_ids, use_cache=False, **rows).last_hidden_state
        return self.head_loss(hidden.flatten(0, 1).index_select(0, positions), labels)
