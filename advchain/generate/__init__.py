"""Ask a model for responses: engine protocol, a transformers engine that runs anywhere, a vLLM engine, and the resumable run."""
