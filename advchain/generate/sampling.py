"""Pick next tokens for a batch in which every row has its own decoding settings and its own random numbers.

Inverse-CDF sampling over the sorted nucleus: a row's token depends on its own logits and its own uniform number only, so a response
does not depend on which rows share the batch (up to rounding of the logits). The order is top-k, then top-p, as in vLLM and transformers.
"""

from __future__ import annotations

import torch

CANDIDATES = 256  # sorting a whole vocabulary per step costs more than the model; a flat row falls back to it


def uniform_numbers(seed: int, count: int) -> torch.Tensor:
    """Return the row's random numbers, one per token, float64 in [0, 1)."""
    return torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def penalise(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return one row's logits [vocabulary] with those of `seen` tokens ([vocabulary], bool) made less likely: positive ones divided by the penalty, negative
    ones multiplied (Keskar et al. 2019, as transformers and vLLM do it, over prompt and response).
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def pick_tokens(logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, top_k: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return one token id per row.

    Args:
        logits: [rows, vocabulary].
        temperature: [rows]; 0 is greedy.
        top_p: [rows] in (0, 1].
        top_k: [rows]; values below 1 mean no limit.
        uniforms: [rows] in [0, 1).

    Returns:
        [rows] int64.
    """
    logits = logits.float()
    greedy = logits.argmax(dim=-1)
    hot = (temperature > 0).nonzero().flatten()
    if not len(hot):
        return greedy
    scaled = logits[hot] / temperature[hot, None]
    vocabulary = scaled.shape[-1]
    limit = torch.where(top_k[hot] < 1, vocabulary, top_k[hot]).clamp(max=vocabulary)[:, None]
    chances, ids = _sorted_chances(scaled, limit, top_p[hot, None])
    before = chances.cumsum(-1) - chances
    chances = torch.where(before < top_p[hot, None], chances, 0.0)
    summed = chances.cumsum(-1)
    target = uniforms[hot, None].to(summed) * summed[:, -1:]
    place = (summed <= target).sum(-1).clamp(max=chances.shape[-1] - 1)
    last = (chances > 0).sum(-1) - 1  # rounding may put the target on the very end
    greedy[hot] = ids.gather(-1, torch.minimum(place, last)[:, None]).flatten()
    return greedy


def _sorted_chances(scaled: torch.Tensor, limit: torch.Tensor, top_p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities after top-k, highest first, and their ids; as many columns as the nucleus can need."""
    total = scaled.logsumexp(-1, keepdim=True)
    width = min(CANDIDATES, scaled.shape[-1])
    values, ids = scaled.topk(width, dim=-1)
    chances = (values - total).exp()
    covered = (limit <= width) | (chances.sum(-1, keepdim=True) >= top_p)
    if not covered.all():
        values, ids = scaled.sort(dim=-1, descending=True)
        chances = (values - total).exp()
    rank = torch.arange(chances.shape[-1], device=chances.device)
    chances = torch.where(rank < limit, chances, 0.0)
    limited = limit < scaled.shape[-1]
    return torch.where(limited, chances / chances.sum(-1, keepdim=True), chances), ids
