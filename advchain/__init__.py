"""AdvChain: adversarial chain-of-thought tuning that teaches a reasoning model to recover from its own bad thoughts."""

__version__ = "0.1.0"
