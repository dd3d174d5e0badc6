"""Traces: what Perfetto is given."""

import json
from pathlib import Path

import pytest

from commbench.errors import UserError
from commbench.overlap import Span
from commbench.telemetry import PHASES
from commbench.trace import Recorder, write
from commbench.units import Window


def test_a_window_is_moved_into_a_shorter_run() -> None:
    window = Window.parse("11:20")
    assert window.within(100) == Window(11, 20)
    assert window.within(15) == Window(6, 15)
    assert window.within(4) == Window(1, 4)


@pytest.mark.parametrize("text", ["", "5", "0:3", "4:3", "a:b", "1:-2"])
def test_bad_windows(text: str) -> None:
    with pytest.raises(UserError, match="give the first and the last step"):
        Window.parse(text)


def test_ranks_are_put_on_one_clock(tmp_path: Path) -> None:
    recorders = [Recorder(Window(2, 3), offset=0.0), Recorder(Window(2, 3), offset=-100.0)]
    seconds = [0.1, 0.2, 0.4, 0.1, 0.2]
    for recorder in recorders:
        for step in range(1, 5):
            start = 10.0 + step - recorder.offset
            spans = [Span(0, 0, start + 0.5, start + 0.65), Span(1, 0, start + 0.65, start + 0.8)]
            recorder.add(step, start, seconds, spans)
    path = tmp_path / "trace.json"
    write(path, recorders, ["here", "there"])
    trace = json.loads(path.read_text())
    told = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {event["args"]["step"] for event in told} == {2, 3}
    for rank in (0, 1):
        own = [event for event in told if event["pid"] == rank]
        phases = [event for event in own if event["tid"] == 0]
        assert [event["name"] for event in phases] == [*PHASES] * 2
        # One after the other, in microseconds from the first event on.
        assert phases[0]["ts"] == pytest.approx(0, abs=1)
        assert phases[5]["ts"] == pytest.approx(1e6, abs=1)
        assert phases[1]["ts"] == pytest.approx(phases[0]["ts"] + phases[0]["dur"], abs=1)
        buckets = [event for event in own if event["tid"] == 1]
        assert [event["name"] for event in buckets] == ["bucket 0", "bucket 1"] * 2
        assert buckets[0]["ts"] == pytest.approx(0.5e6, abs=1)
    named = {
        (event["pid"], event["args"]["name"])
        for event in trace["traceEvents"]
        if event["name"] == "process_name"
    }
    assert named == {(0, "rank 0 on here"), (1, "rank 1 on there")}
