"""Uses the deployed class of `pools.py` from another process: python pool_lookups.py DEPLOYMENT."""

import json
import sys
import time

import modal

deployment = sys.argv[1]


def find(name):
    find = getattr(modal.Cls, "lookup", modal.Cls.from_name)
    return find(deployment, name)


def report(**values):
    print("RESULT " + json.dumps(values), flush=True)


def keep(instance, number):
    """Keeps so many containers for an instance, by the method that this client has for it."""
    update = getattr(instance, "update_autoscaler", None)
    return update(min_containers=number) if update else instance.keep_warm(number)


Model = find("Model")
ten, same, other = Model(name="ten", size=10), Model(name="ten", size=10), Model(name="other")
report(pools=[ten.where.remote(), same.where.remote(), other.where.remote(), Model().where.remote()])
small = Model.with_options(memory=(128, 192))
report(options=small(name="ten", size=10).where.remote(), eaten=ten.eat.remote(400))
try:
    report(limited=small(name="ten", size=10).eat.remote(400))
except Exception as error:
    report(limited=str(error))

keep(Model(name="warm"), 1)
time.sleep(3)
began = time.time()
report(warm=[Model(name="warm").where.remote()[0], time.time() - began])
keep(Model(name="warm"), 0)

if hasattr(Model, "with_concurrency"):
    wide = Model.with_concurrency(max_inputs=4)(name="wide")
else:
    wide = Model.with_options(allow_concurrent_inputs=4)(name="wide")
report(wide=list(wide.nap.map([1] * 4)))

if hasattr(Model, "with_batching"):
    Batched = find("Batched")
    sizes = [list(Batched().sizes.map(range(2)))]
    sizes.append(list(Batched.with_batching(max_batch_size=4, wait_ms=3000)().sizes.map(range(4))))
    report(batches=sizes)
try:
    find("Nobody")().where.remote()
    report(missing="found")
except modal.exception.NotFoundError as error:
    report(missing=str(error))
