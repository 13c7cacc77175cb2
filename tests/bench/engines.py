"""Do vLLM and transformers write the same greedy text? `make bench-engines`; the last line is one JSON object.

Both engines of the pipeline, fp32 on a CPU, on the same eight prompts. Called without arguments it runs itself once per engine, each in
its own environment; called with an engine's name, a model folder and a file it writes that engine's texts there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NUM_TOKENS = 48
PROMPTS = (
    "What is the capital of France?",
    "Write a short story about a cat who learns to sail.",
    "Explain photosynthesis to a child in a few sentences.",
    "List five tips for better sleep.",
    "Who wrote Hamlet?",
    "What is 12 times 12?",
    "Name three rivers in Europe.",
    "Why is the sky blue?",
)


def write(name: str, model: Path, output: Path) -> None:
    """Answer the prompts greedily with one engine."""
    from advchain import chat
    from advchain.generate.engine import Request
    from advchain.models import check_template, load_tokenizer
    from advchain.specs import Sampling

    family, tokenizer = check_template(model), load_tokenizer(model)
    sampling = Sampling(temperature=0.0, max_new_tokens=NUM_TOKENS)
    requests = [Request(str(i), str(i), 0, i, tuple(chat.encode_prompt(family, tokenizer, text)), sampling) for i, text in enumerate(PROMPTS)]
    if name == "vllm":
        from advchain.generate.vllm_engine import VllmEngine

        engine = VllmEngine(model, family, "fp32", max(len(request.prompt_ids) for request in requests) + NUM_TOKENS)
    else:
        from advchain.generate.transformers_engine import TransformersEngine

        engine = TransformersEngine(model, family, "fp32", 16384)
    output.write_text(json.dumps({done.request.key: done.text for done in engine.generate(requests)}))
    engine.close()


def main() -> None:
    pythons = {"transformers": sys.executable, "vllm": os.environ.get("ADVCHAIN_GENERATE_PYTHON") or str(ROOT / ".venv-generate/bin/python")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = "results/models/smollm2-135m/model.json"
        subprocess.run([sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "-d", folder, "--cores", "1", "--quiet", "all", "--", target], check=True)
        texts = {}
        for engine, python in pythons.items():
            output, model = folder / f"{engine}.json", folder / Path(target).parent
            subprocess.run([python, __file__, engine, model, output], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
            texts[engine] = json.loads(output.read_text())
    same = sum(texts["vllm"][key] == text for key, text in texts["transformers"].items())
    print(json.dumps({"prompts": len(PROMPTS), "tokens": NUM_TOKENS, "same_text": same}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
