"""Checks of what a config needs from outside: keys by name, endpoints, gated repositories, local files. No secret is ever printed or logged."""

from __future__ import annotations

import importlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from advchain.catalogue import module
from advchain.entries import JudgeEntry, read_entry
from advchain.errors import ConfigError
from advchain.files import GITHUB, Pin, expand_variables
from advchain.operations.pages import Line
from advchain.plan import Plan
from advchain.specs import Spec, TeacherSpec

SECTION = "Access"
SECONDS = 5.0
NOT_OVER_HTTP = ("embedded", "served")


@dataclass(frozen=True)
class Need:
    """One file that stands for a repository: whoever can read it can read the rest. `users` are the config's names for what needs it."""

    url: str
    page: str
    repo: str
    users: tuple[str, ...]
    cached: bool


def teachers_in(value: Any) -> Iterator[TeacherSpec]:
    """Every endpoint anywhere in a spec."""
    if isinstance(value, TeacherSpec):
        yield value
    elif isinstance(value, Spec):
        for _, part in value:
            yield from teachers_in(part)
    elif isinstance(value, tuple):
        for part in value:
            yield from teachers_in(part)


def teachers_of(plan: Plan) -> dict[str, TeacherSpec]:
    """Endpoints that the plan asks, by name: teachers, attackers, judges, and models behind one."""
    used = sorted({str(part.chains) for recipe in plan.recipes for part in plan.dataset_spec(recipe).parts if part.chains})
    asked: list[Spec] = [plan.chains_spec(name) for name in used]
    asked += [plan.prompts_spec(name) for name in plan.evaluations] + [plan.judge_stage_spec(name) for name in plan.evaluations]
    asked += [plan.generate_spec(checkpoint, plan.evaluations_of(checkpoint)) for checkpoint in plan.checkpoints]
    return {teacher.name: teacher for spec in asked for teacher in teachers_in(spec)}


def key_lines(plan: Plan) -> Iterator[Line]:
    """API keys by the name of their variable."""
    names: dict[str, list[str]] = {}
    for teacher in teachers_of(plan).values():
        if teacher.api_key_env:
            names.setdefault(teacher.api_key_env, []).append(teacher.name)
    for key, users in sorted(names.items()):
        known = bool(os.environ.get(key, "").strip())
        text = f"{'set' if known else 'not set'}, for {', '.join(users)}"
        yield Line(SECTION, key, "ok" if known else "FAIL", text, "" if known else f"export {key}=... (the key itself; never in a config file)")
    if not names:
        yield Line(SECTION, "API keys", "ok", "none needed")


def endpoint_lines(plan: Plan) -> list[Line]:
    """Whether each endpoint answers at all, without a key: any HTTP status will do. Hosts only, as an address may carry a secret."""
    asked = {str(urlsplit(t.base_url).hostname): t.base_url for t in teachers_of(plan).values() if t.base_url not in NOT_OVER_HTTP}
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = dict(zip(asked, pool.map(lambda url: status_of(url, None), asked.values()), strict=True))
    return [
        Line(SECTION, host, "FAIL", "does not answer", "check the network, a proxy (HTTPS_PROXY), or start the server that base_url names")
        if status is None
        else Line(SECTION, host, "ok", f"answers (HTTP {status})")
        for host, status in found.items()
    ]


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: following it would hand the token to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def status_of(url: str, token: str | None) -> int | None:
    """Return the HTTP status of a HEAD request, None where nothing answers in time."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.build_opener(_Stay).open(urllib.request.Request(url, method="HEAD", headers=headers), timeout=SECONDS) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except (OSError, ValueError):
        return None


def repository_lines(plan: Plan) -> Iterator[Line]:
    """Hub and GitHub repositories of models, judges and data: cached, readable, or gated with the page to accept."""
    needs = list(needs_of(plan))
    if not needs:
        yield Line(SECTION, "hub", "ok", "nothing to fetch: everything is shipped, local, or from the package index")
        return
    token = hub_token()
    yield Line(SECTION, "HF_TOKEN", "ok", "set" if os.environ.get("HF_TOKEN") else "a login is stored") if token else _no_token()
    missing = [need for need in needs if not need.cached]
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = list(pool.map(lambda need: status_of(need.url, None if "github" in need.page else token), missing))
    if missing and all(status is None for status in found):
        hosts = " and ".join(sorted({str(urlsplit(need.url).hostname) for need in missing}))
        fix = f"{len(missing)} repositories have to be fetched: check the network, HTTPS_PROXY and HF_ENDPOINT, or give local files (`from: local`, `path:`)"
        yield Line(SECTION, "hub", "FAIL", f"no answer from {hosts}", fix)
    else:
        yield from (_repository(need, status) for need, status in zip(missing, found, strict=True) if status is None or status >= 400)
        fine = sum(status is not None and status < 400 for status in found)
        if fine:
            yield Line(SECTION, "repositories", "ok", f"{fine} of {len(needs)} can be read")
    if len(missing) < len(needs):
        yield Line(SECTION, "cache", "ok", f"{len(needs) - len(missing)} of {len(needs)} repositories are in the hub's cache")


def _no_token() -> Line:
    return Line(SECTION, "HF_TOKEN", "warn", "not set, and no login is stored", "gated repositories need one: export HF_TOKEN=..., or `hf auth login`")


def _repository(need: Need, status: int | None) -> Line:
    users = f"for {', '.join(need.users[:3])}"
    if status in (401, 403):
        return Line(SECTION, need.repo, "FAIL", f"gated or private (HTTP {status}), {users}", f"accept the terms at {need.page} with the account of HF_TOKEN")
    if status is None:
        return Line(SECTION, need.repo, "FAIL", f"did not answer in {SECONDS:.0f} s, {users}", "run doctor again; check the network")
    return Line(SECTION, need.repo, "FAIL", f"HTTP {status}, {users}", f"look at {need.page}: it was moved or removed, or the file is not there")


def hub_token() -> str | None:
    """The token that the hub's client would use."""
    import huggingface_hub

    return huggingface_hub.get_token()


def needs_of(plan: Plan) -> Iterator[Need]:
    """Every repository that the plan fetches from, once."""
    pins: dict[Pin, list[str]] = {}
    read = [("sources", spec.loader, spec.name, spec.origin) for spec in map(plan.source_spec, _sources(plan))]
    read += [("benchmarks", spec.benchmark, spec.name, spec.origin) for spec in _prompts(plan)]
    for folder, file, name, origin in read:
        pin = importlib.import_module(f"advchain.{folder}.{module(folder, file, name).name}").PIN if origin == "hub" else None
        if pin is not None:
            pins.setdefault(pin, []).append(name)
    for pin, users in pins.items():
        yield _pinned(pin, tuple(dict.fromkeys(users)))
    for repo, revision, owners in weights_of(plan):
        yield _hub_file(repo, revision or "main", "config.json", "model", f"https://huggingface.co/{repo}", owners)


def _sources(plan: Plan) -> list[str]:
    """Sources whose rows are really read."""
    parts = [part for recipe in plan.recipes for part in plan.dataset_spec(recipe).parts]
    read = {part.source for part in parts if part.source} | {plan.config.chains[part.chains].source for part in parts if part.chains}
    return sorted(str(name) for name in read | set(plan.compared_sources))


def _prompts(plan: Plan) -> Iterable[Any]:
    return [*(plan.prompts_spec(name) for name, e in plan.evaluations.items() if e.attack is None), *(plan.compared.values() if plan.recipes else ())]


def weights_of(plan: Plan) -> list[tuple[str, str | None, tuple[str, ...]]]:
    """(repository, revision, users) of models and of judges with weights of their own."""
    names = sorted({plan.weights_of(c) for c in plan.checkpoints if plan.method(c.method).kind != "train"} | {c.model for c in plan.checkpoints})
    found: list[tuple[str, str | None, tuple[str, ...]]] = []
    for name in names:
        model = plan.model(name)
        if model.origin.startswith("hub:"):
            found.append((model.origin.removeprefix("hub:"), model.revision, (name,)))
    for judge in sorted({judge for name in plan.evaluations for judge in plan.judges_of(name)}):
        options = read_entry("judges", judge, JudgeEntry, "judges").options
        if "model" in options and not options.get("path"):
            found.append((str(options["model"]), options.get("revision"), (judge,)))
    return found


def _pinned(pin: Pin, users: tuple[str, ...]) -> Need:
    if pin.kind == "github":
        base = os.environ.get("ADVCHAIN_GITHUB", GITHUB).rstrip("/")
        return Need(f"{base}/{pin.repo}/{pin.revision}/{pin.path}", pin.page, pin.repo, users, cached=False)
    return _hub_file(pin.repo, pin.revision, pin.path, "dataset", pin.page, users)


def _hub_file(repo: str, revision: str, path: str, kind: str, page: str, users: tuple[str, ...]) -> Need:
    import huggingface_hub as hub

    cached = isinstance(hub.try_to_load_from_cache(repo, path, revision=revision, repo_type=kind), str)
    return Need(hub.hf_hub_url(repo, path, repo_type=kind, revision=revision), page, repo, users, cached)


def local_lines(plan: Plan) -> Iterator[Line]:
    """Files named in the config."""
    wrong = []
    for where, path in plan.local_paths:
        try:
            found = Path(expand_variables(path, where))
        except ConfigError as error:
            wrong.append(Line(SECTION, where, "FAIL", *str(error).partition(". ")[::2]))
            continue
        if not found.is_file():
            wrong.append(Line(SECTION, where, "FAIL", f"there is no file {found}", "mend `path:`, or use `from: hub` or `from: sample`"))
    yield from wrong
    if plan.local_paths and not wrong:
        yield Line(SECTION, "local files", "ok", f"{len(plan.local_paths)} found")
