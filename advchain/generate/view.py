"""What judges read of a response: the answer (the default), the chain, or the whole text (METHOD 4).

AdvChain judges the answer; STAR-1 judges the whole response with its chain, which counts a model that discusses harm while it refuses. A view is a
copy of the responses whose `answer` is what the judges read, so that every judge knows every view. Nobody is judged by what an attack forced.
"""

from __future__ import annotations

from pathlib import Path

from advchain.chat import CLOSE, OPEN
from advchain.io import iter_records
from advchain.manifests import StageTimer, write_stage
from advchain.records import Response
from advchain.specs import View, ViewSpec


def write_view(responses: Path, output: Path, spec: ViewSpec) -> None:
    """Write the responses as the judges of one evaluation read them, row by row in order."""
    timer = StageTimer()
    rows = [viewed(response, spec.view) for response in iter_records(responses, Response)]
    write_stage(output, rows, stage="view", spec=spec.model_dump(mode="json"), inputs=[responses], timer=timer)


def viewed(response: Response, view: View) -> Response:
    """Return a response whose answer is what is to be read; an unclosed chain can be read too, so its state is `closed`.

    chain: what the model thought itself, "" where it did not think. full: chain and answer, a blank line between them, without the tags.
    """
    if view == "answer":
        return response
    chain = _own_chain(response)
    texts = (chain,) if view == "chain" else (chain, response.answer)
    return response.model_copy(update={"answer": "\n\n".join(text for text in texts if text), "state": "closed"})


def _own_chain(response: Response) -> str:
    *thoughts, last = response.text.split(CLOSE)
    if response.state == "unclosed":
        thoughts.append(last)
    return "\n\n".join(text for thought in thoughts if (text := thought.strip().removeprefix(OPEN).strip()))
