"""A chat completions endpoint in a process of its own, with rate limits, latency and faults; for the tests and the benchmark of the client."""
