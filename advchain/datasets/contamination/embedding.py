"""How alike two prompts are in meaning: cosine of mean-pooled embeddings of a local model (STAR-1 used MiniLM, METHOD 2)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from advchain.errors import EngineError
from advchain.models import refuse_foreign_code

log = logging.getLogger(__name__)

BATCH = 32
MAX_TOKENS = 256  # MiniLM's own limit; the beginning of a prompt says what is asked


class Embedder:
    """A sentence-embedding model in a local folder (config, tokenizer, weights); nothing is fetched.

    Raises:
        EngineError: the folder does not hold a model that can be loaded.
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self._torch = torch
        try:
            refuse_foreign_code(folder)
            ours: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **ours)
            self._model: Any = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **ours).eval()
        except (OSError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise EngineError(
                f"contamination.embedding_model: no embedding model can be loaded from {folder} ({reason}). Name a folder with config.json, "
                "tokenizer and weights, such as a copy of sentence-transformers/all-MiniLM-L6-v2, or leave the setting out."
            ) from error
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        log.info("embedding model %s: %d dimensions", folder, self._model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (texts, dimensions) unit vectors: the mean of the last layer over a text's own tokens."""
        parts = [self._batch(list(texts[i : i + BATCH])) for i in range(0, len(texts), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, self._model.config.hidden_size), np.float32)

    def _batch(self, texts: list[str]) -> npt.NDArray[np.float32]:
        with self._torch.inference_mode():
            tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            hidden = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            vectors: npt.NDArray[np.float32] = self._torch.nn.functional.normalize(mean, dim=1).numpy()
        return vectors


class EmbeddingIndex:
    """Cosine between prompts and benchmark texts, -1..1."""

    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        self._vectors = embedder.embed(texts)

    def scores(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (prompts, texts) scores of embedded prompts."""
        return vectors @ self._vectors.T
