"""Makes, finds, renames and deletes Volumes in every way that this version of the client has."""

import json
import sys

import modal

PREFIX = sys.argv[1]
report = {}


def failure(work):
    """The kinds of the error that `work` ends with, and what it says."""
    try:
        work()
    except Exception as error:
        status = getattr(getattr(error, "status", None), "name", "")
        return {"kinds": [kind.__name__ for kind in type(error).__mro__], "status": status, "message": str(error)}
    return None


def paths(volume):
    return [entry.path for entry in volume.listdir("/")]


missing = PREFIX + "-missing"
report["missing"] = failure(lambda: paths(modal.Volume.from_name(missing)))

made = PREFIX + "-made"
report["created"] = paths(modal.Volume.from_name(made, create_if_missing=True))
first = modal.Volume.from_name(made)
paths(first)
again = modal.Volume.from_name(made, create_if_missing=True)
paths(again)
report["same"] = first.object_id == again.object_id
report["id"] = first.object_id

deployed = PREFIX + "-deployed"
if hasattr(modal.Volume, "create_deployed"):
    report["deployed_id"] = modal.Volume.create_deployed(deployed)
    report["deployed_twice"] = failure(lambda: modal.Volume.create_deployed(deployed))
if hasattr(modal.Volume, "lookup"):
    report["looked_up"] = modal.Volume.lookup(made).object_id
    report["lookup_missing"] = failure(lambda: modal.Volume.lookup(missing))

with modal.Volume.ephemeral() as volume:
    with volume.batch_upload() as batch:
        batch.put_file(__file__, "program.py")
    report["ephemeral"] = paths(volume)

if hasattr(modal.Volume, "rename"):
    modal.Volume.rename(made, made + "-new")
    renamed = modal.Volume.from_name(made + "-new")
    paths(renamed)
    report["renamed_id"] = renamed.object_id
    report["old_name"] = failure(lambda: paths(modal.Volume.from_name(made)))
    modal.Volume.rename(made + "-new", made)

if hasattr(modal.Volume, "objects"):
    own = PREFIX + "-objects"
    modal.Volume.objects.create(own, version=2)
    report["objects_twice"] = failure(lambda: modal.Volume.objects.create(own))
    modal.Volume.objects.create(own, version=2, allow_existing=True)
    report["other_version"] = failure(lambda: modal.Volume.objects.create(own, version=1, allow_existing=True))
    for number in range(5):
        modal.Volume.objects.create(f"{own}-{number}")
    names = [volume.name for volume in modal.Volume.objects.list()]
    report["objects_listed"] = [name for name in names if name.startswith(own)]
    report["objects_first"] = len(modal.Volume.objects.list(max_objects=3))
    info = modal.Volume.from_name(own).info()
    report["info"] = {"name": info.name, "created_at": info.created_at.timestamp(), "created_by": info.created_by}
    report["by_id"] = modal.Volume.from_id(first.object_id).listdir("/")
    modal.Volume.objects.delete(own)
    modal.Volume.objects.delete(own, allow_missing=True)
    report["objects_gone"] = failure(lambda: modal.Volume.objects.delete(own))
    modal.Volume.objects.delete(made)
else:
    modal.Volume.delete(made)
report["deleted"] = failure(lambda: paths(modal.Volume.from_name(made)))
report["by_deleted_id"] = failure(lambda: paths(first))

print("RESULT " + json.dumps(report))
