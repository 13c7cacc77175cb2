"""VERSION of each stage, part of its spec: bump one when its output may change, so that finished results are re-made.

Benchmarks, attacks and judges carry their own VERSION in their file.
"""

SOURCES = 2
CHAINS = 4
DATASETS = 2
CONTAMINATION = 1
CARD = 1
EXPORT = 1
MODELS = 1
TRAIN = 2
PROMPTS = 1
GENERATE = 2
VIEW = 1
JUDGE = 3
SCORE = 7
REPORT = 9
