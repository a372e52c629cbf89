"""Output of functions: live, complete, in order."""

import re

from harness.client import Client

LINES = 10_000


def test_ten_thousand_lines_arrive_complete_and_in_order(client: Client) -> None:
    run = client.run("logs.py::flood", "--lines", str(LINES))
    numbers = [int(number) for number in re.findall(r"line (\d{6}) of the output", run.output)]
    missing = sorted(set(range(LINES)) - set(numbers))
    assert not missing, f"{len(missing)} lines are missing, the first of them {missing[:5]}"
    assert numbers == list(range(LINES)), "lines came twice or out of order"


def test_output_is_shown_while_the_function_runs(client: Client) -> None:
    running = client.begin_run("logs.py::live")
    try:
        early = running.wait_for_line("early line", 60)
        late = running.wait_for_line("late line", 30)
        assert late - early > 3, f"both lines came together, {late - early:.1f} s apart though 6 s lie between them"
        assert running.wait(60).code == 0
    finally:
        running.end()


def test_both_streams_and_an_unfinished_line_are_shown(client: Client) -> None:
    run = client.run("logs.py::streams")
    assert re.findall(r"\bout (\d+)", run.output) == [str(n) for n in range(50)]
    assert re.findall(r"\berr (\d+)", run.output) == [str(n) for n in range(50)]
    assert "no newline at the end" in run.output
