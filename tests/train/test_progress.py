import json
from pathlib import Path

import pytest

from autoneural.train.progress import MetricsLog, Reporter


def test_resuming_cuts_metrics_back_to_the_saved_step(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, {"stage": "s", "loss": step / 2})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # the run was killed while it wrote
    log = MetricsLog(tmp_path, 2)
    log.write(3, {"stage": "s", "loss": 9.0})
    log.close()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["loss"]) for r in records] == [(1, 0.5), (2, 1.0), (3, 9.0)]


def test_plain_lines_when_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter("vision", 10, 40)
    reporter.report(20, "loss 0.5000")
    reporter.close()
    out = capsys.readouterr().out
    assert out.startswith("vision 20/40  loss 0.5000  left ")
    assert out.count("\n") == 1
