"""Full fine-tuning through DeepSpeed."""
