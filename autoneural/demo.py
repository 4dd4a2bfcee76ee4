"""`make demo`: the packaged example pictures, asked and answered, with what the answers cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from autoneural.bundle import DEFAULT_BUNDLE, Bundle
from autoneural.chat import stats_line, user_message
from autoneural.data.messages import Message
from autoneural.errors import UserError
from autoneural.runtime import Engine, Result

EXAMPLES = Path(__file__).parent / "examples"


@dataclass(frozen=True)
class DemoTurn:
    """One question of the demo with the right answer."""

    prompt: str
    expected: str


@dataclass(frozen=True)
class DemoCase:
    """A conversation about some pictures, all shown with the first question."""

    title: str
    images: tuple[Path, ...]
    turns: tuple[DemoTurn, ...]


def load_demo(folder: Path = EXAMPLES) -> list[DemoCase]:
    """The cases of `folder/demo.json`."""
    path = folder / "demo.json"
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))
        return [_case(folder, case) for case in cases]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: missing or damaged ({error}); reinstall autoneural") from error


def _case(folder: Path, case: dict[str, Any]) -> DemoCase:
    return DemoCase(
        title=case["title"],
        images=tuple(folder / name for name in case["images"]),
        turns=tuple(DemoTurn(turn["prompt"], turn["expected"]) for turn in case["turns"]),
    )


def run_demo(
    bundle: Engine | Bundle | str | Path = DEFAULT_BUNDLE,
    target: str | None = None,
    *,
    folder: Path = EXAMPLES,
    console: Console | None = None,
) -> int:
    """Answer all example questions, by an engine or the engine of a bundle's target.

    Returns how many came out as expected.
    """
    console = console or Console(highlight=False)
    cases = load_demo(folder)
    engine = bundle if isinstance(bundle, Engine) else Engine(bundle, target)
    label = engine.placement.label
    console.print(f"[bold]{escape(engine.bundle.name)}[/] on target {escape(label)}")
    right = sum(_answer(engine, case, console) for case in cases)
    console.print(f"\n{right} of {sum(len(case.turns) for case in cases)} as expected")
    return right


def _answer(engine: Engine, case: DemoCase, console: Console) -> int:
    names = ", ".join(path.name for path in case.images)
    console.print(f"\n[bold]{escape(case.title)}[/]  [dim]{escape(names)}[/]")
    right = 0
    for turn, result in _conversation(engine, case):
        correct = result.text.strip().lower() == turn.expected.strip().lower()
        right += correct
        verdict = "[green]right[/]" if correct else f"[red]expected {escape(turn.expected)}[/]"
        console.print(f"  [cyan]Q[/] {escape(turn.prompt)}")
        console.print(f"  [cyan]A[/] {escape(result.text.strip())}  {verdict}")
        console.print(f"    [dim]{escape(stats_line(result))}[/]", soft_wrap=True)
    return right


def _conversation(engine: Engine, case: DemoCase) -> Iterator[tuple[DemoTurn, Result]]:
    messages: list[Message] = []
    images = [engine.processor.load(path) for path in case.images]
    for turn in case.turns:
        messages.append(user_message(turn.prompt, [] if messages else images))
        generation = engine.generate(messages)
        for _ in generation:
            pass
        yield turn, generation.result
        messages.append({"role": "assistant", "content": generation.result.text or " "})
