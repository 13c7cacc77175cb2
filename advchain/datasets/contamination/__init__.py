"""Training prompts against benchmark prompts: the same text, the same words, the same meaning (METHOD 7.4)."""
