"""Changes of the autoscaler that make sense and others, and what the function says of itself meanwhile."""

import dataclasses
import json
import time

import modal

app = modal.App("scaling-refused", image=modal.Image.debian_slim(python_version="3.11"))


@app.function(max_containers=3)
@modal.concurrent(max_inputs=5)
def f(seconds):
    time.sleep(seconds)


@app.local_entrypoint()
def main():
    try:
        f.autoscaler.update(min_containers=4)
        crossed = "accepted"
    except Exception as error:
        crossed = str(error)
    f.autoscaler.update(min_containers=1, buffer_containers=2)
    merged = dataclasses.asdict(f.autoscaler.update(scaledown_window=30))
    names = ["min_containers", "max_containers", "buffer_containers", "scaledown_window"]
    f.autoscaler.update(min_containers=0, buffer_containers=0)
    call = f.spawn(20)
    deadline = time.time() + 20
    while f.get_current_stats().num_running_inputs != 1 and time.time() < deadline:
        time.sleep(0.1)
    stats = f.get_current_stats()
    call.cancel()
    running = [stats.num_running_inputs, stats.input_headroom]
    print("RESULT " + json.dumps({"crossed": crossed, "merged": [merged[name] for name in names], "running": running}))
