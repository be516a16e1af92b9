"""The answer of a page: what was trained or added, and how good it is."""

from __future__ import annotations

from typing import Any

from tzk_core.report import words
from tzk_plugin_report.reading import Run


def answer(run: Run) -> list[str]:
    """What was trained, on what, and how good it is, in sentences."""
    sentences = [_added(run) if run.addition else _trained(run)]
    sentences += words.likelihood(run.results) or ["Nothing has been evaluated yet."]
    told = words.knowledge(run.results)
    return [*sentences, told] if told else sentences


def _trained(run: Run) -> str:
    steps = run.results.get("step") or run.record.get("trained_steps") or run.config.get("training", {}).get("steps")
    of = f" ({run.results['step']:,} of {run.record['trained_steps']:,} steps)" if _is_best(run) else ""
    flow = run.config.get("flow", {})
    shape = f"the recipe “{flow['recipe']}”" if flow.get("recipe") else "layers of its own"
    count = len(run.knowledge)
    knowledge = f", with {_types(count)} beside it" if count else ""
    trained = f"One flow, {shape}, was trained on {words.listed(run.datasets)}{knowledge}"
    return f"{trained}, in {steps:,} steps{of}." if steps else f"{trained}."


def _added(run: Run) -> str:
    """What `tzk add` added to which run; the shared flow was not trained."""
    names = [str(table.get("name", table.get("type"))) for table in run.addition.get("datasets", ())]
    count = len(run.knowledge)
    text = f"{_types(count)[:1].upper()}{_types(count)[1:]} {'was' if count == 1 else 'were'} added to {run.parent}"
    text += f", trained on {words.listed(names)}" if names else ""
    steps: Any = run.addition.get("training", {}).get("steps")
    text += f" in {steps:,} steps" if steps else ""
    older = len(run.comparison["rows"]) - 1 if run.comparison else 0
    kept = f"the shared flow and {_types(older)} of before" if older > 0 else "the shared flow"
    return f"{text}; {kept} did not change."


def _types(count: int) -> str:
    return f"{count} knowledge type{'' if count == 1 else 's'}"


def _is_best(run: Run) -> bool:
    step, last = run.results.get("step"), run.record.get("trained_steps")
    return step is not None and last is not None and step != last
