"""Model folders: made by `fetch` (base models) and by training (checkpoints), described by model.json."""

from advchain.models.folder import (
    CARD,
    ModelCard,
    check_template,
    check_weights,
    digest_of,
    hash_weights,
    load_model_card,
    load_tokenizer,
    read_config,
    refuse_foreign_code,
    tensor_parallel_size,
    tensor_parallel_sizes,
    weights_digest,
    write_model_card,
)

__all__ = [
    "CARD",
    "ModelCard",
    "check_template",
    "check_weights",
    "digest_of",
    "hash_weights",
    "load_model_card",
    "load_tokenizer",
    "read_config",
    "refuse_foreign_code",
    "tensor_parallel_size",
    "tensor_parallel_sizes",
    "weights_digest",
    "write_model_card",
]
