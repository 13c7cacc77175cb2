"""What the fork server of `training.py` imports and finds out once for all trainings."""

from __future__ import annotations

import functools
import gc

import deepspeed
import deepspeed.module_inject.auto_ep_layer
import deepspeed.runtime.superoffload.superoffload_stage3
import deepspeed.runtime.zero.muon.original_muon
import torch
import torch.distributed.elastic
import training
import transformers.models.llama.modeling_llama
from transformers.integrations import HfDeepSpeedConfig

import advchain.train.export
import advchain.train.loss
import advchain.train.sft
from advchain import manifests

__all__ = ["HfDeepSpeedConfig", "advchain", "deepspeed", "torch", "training", "transformers"]

manifests.code_hash = functools.lru_cache(manifests.code_hash)  # reads every source file
manifests.code_hash()
dict(deepspeed.ops.__compatible_ops__)  # runs the C++ compiler to see what could be built
gc.freeze()  # else the first full collection of every fork copies all of this
