"""Do vLLM and transformers write the same greedy text, and how fast? `make bench-generate`; the last line is one JSON object.

Both engines of the pipeline, fp32 on a CPU, one after the other on the same prompts and forced chains; then vLLM with one core, alone and twice at once, as two
jobs of a run are. Called without arguments it runs itself for each, in the engine's environment; called with an engine's name, a model folder and a file it
writes that engine's texts and speed there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from advchain import chat
from advchain.generate.engine import EngineName, Request, Settings, load_engine
from advchain.models import check_template, load_tokenizer
from advchain.specs import Sampling

ROOT = Path(__file__).resolve().parents[2]
NUM_TOKENS = 48
QUESTIONS = (
    "What is {} in one sentence?",
    "Write a short story about {}.",
    "Explain {} to a child.",
    "List five facts about {}.",
    "Why do people like {}?",
)
TOPICS = ("the sea", "bread", "the moon", "chess", "rain", "bicycles", "the city of Rome", "trees", "music", "the number seven")
PROMPTS = tuple(question.format(topic) for topic in TOPICS for question in QUESTIONS)
CHAINS = tuple((f"Tell me about {topic}.", f"The user asks about {topic}. I should first say what it is, and then") for topic in TOPICS)


def make_requests(model: Path) -> list[Request]:
    """All prompts, then the same model made to go on in the middle of a chain."""
    family, tokenizer = check_template(model), load_tokenizer(model)
    sampling = Sampling(temperature=0.0, max_new_tokens=NUM_TOKENS)
    pairs = [*((prompt, "") for prompt in PROMPTS), *CHAINS]
    ids = [tuple(chat.encode_prompt(family, tokenizer, prompt, chat.Forced(prefix))) for prompt, prefix in pairs]
    return [Request(str(number), str(number), 0, number, prompt_ids, sampling) for number, prompt_ids in enumerate(ids)]


def write(name: EngineName, model: Path, output: Path) -> None:
    """Answer everything greedily with one engine; the load is not in the time."""
    requests = make_requests(model)
    longest = max(len(request.prompt_ids) for request in requests) + NUM_TOKENS
    engine = load_engine(Settings(str(model), name, "fp32", longest))
    began = time.monotonic()
    done = [completion for finished in engine.generate(requests) for completion in finished]
    seconds = time.monotonic() - began
    engine.close()
    rate = sum(completion.num_tokens for completion in done) / seconds
    output.write_text(json.dumps({"texts": {completion.request.key: completion.text for completion in done}, "tokens_per_second": round(rate, 1)}))


def run(name: str, python: str, model: Path, copies: int = 1, **environment: str) -> list[Any]:
    """Start an engine so many times at once; return what each wrote."""
    outputs = [model / f"{name}{number}.json" for number in range(copies)]
    commands = [[python, __file__, name, str(model), str(output)] for output in outputs]
    started = [subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment) for command in commands]
    assert [process.wait() for process in started] == [0] * copies
    return [json.loads(output.read_text()) for output in outputs]


def main() -> None:
    pythons = {"transformers": sys.executable, "vllm": os.environ.get("ADVCHAIN_GENERATE_PYTHON") or str(ROOT / ".venv-generate/bin/python")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = "results/models/smollm2-135m/model.json"
        subprocess.run([sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "-d", folder, "--cores", "1", "--quiet", "all", "--", target], check=True)
        model = folder / Path(target).parent
        results = {engine: run(engine, python, model)[0] for engine, python in pythons.items()}
        (alone,) = run("vllm", pythons["vllm"], model, OMP_NUM_THREADS="1")
        beside = run("vllm", pythons["vllm"], model, copies=2, OMP_NUM_THREADS="1")
    same = [results["vllm"]["texts"][key] == text for key, text in sorted(results["transformers"]["texts"].items(), key=lambda pair: int(pair[0]))]
    rates = {f"{engine}_tokens_per_second": result["tokens_per_second"] for engine, result in results.items()}
    rates |= {"vllm_one_core": alone["tokens_per_second"], "vllm_two_at_once_each": round(sum(one["tokens_per_second"] for one in beside) / 2, 1)}
    counts = {"same_text": sum(same[: len(PROMPTS)]), "chains": len(CHAINS), "same_chains": sum(same[len(PROMPTS) :])}
    counts["same_text_at_once"] = sum(all(one["texts"][key] == text for one in beside) for key, text in alone["texts"].items())
    print(json.dumps({"prompts": len(PROMPTS), "tokens": NUM_TOKENS} | counts | rates))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))  # type: ignore[arg-type]  # an engine's name
    else:
        main()
