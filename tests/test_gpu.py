"""A call that wants GPUs that the machine doesn't have: never silently without them."""

import re

import pytest

from harness.client import Client
from harness.server import Server
from harness.waiting import wait_for


def test_the_fallback_to_the_cpu_is_announced(client: Client) -> None:
    run = client.run("gpu.py")
    assert "computed 42" in run.output
    assert re.search(r"GPU \(H100:8\).*CPU", run.flat), f"nothing told that there is no GPU:\n{run}"
    assert "(H100:8)" in client.run("gpu.py").flat, "only the first start told it"


@pytest.mark.once
def test_without_the_fallback_the_call_waits_and_says_why(client: Client, server: Server) -> None:
    server.stop()
    try:
        server.start()
        running = client.begin_run("gpu.py")
        try:
            wait_for("word about the GPU", lambda: "gpu" in running.output.lower().replace("gpu.py", ""), 60)
            assert running.process.poll() is None, f"the call did not wait:\n{running.output}"
            assert "computed" not in running.output
        finally:
            running.end()
        server.stop()
    finally:
        server.kill()
        server.start("--gpu-fallback", "cpu")
