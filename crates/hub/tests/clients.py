"""Drives the real huggingface_hub against the hub at HF_ENDPOINT.

Run by the tests in tests/hub/clients.rs, once for each version of the library. The argument is
JSON that names the directories that were imported and the commits that this made. Prints one line
for each check; the first failure ends it with a traceback.
"""

import hashlib
import inspect
import json
import os
import pathlib
import sys
import urllib.request

import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.utils import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

EXPECTED = json.loads(sys.argv[1])
OLD, NEW, REAL, FLAKY = (pathlib.Path(EXPECTED[key]) for key in ("old", "new", "real", "flaky"))
OLD_COMMIT, NEW_COMMIT = EXPECTED["old_commit"], EXPECTED["new_commit"]
REPO = "org/tiny"
API = HfApi()
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def files_of(directory):
    """Contents by path, without what the library itself adds."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and not name.startswith((".cache/", ".huggingface/")):
            found[name] = path.read_bytes()
    return found


def recorded():
    """The requests since the last call."""
    with urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/recorded") as response:
        return json.load(response)


def downloads(log):
    return [entry for entry in log if entry["method"] == "GET" and "/resolve/" in entry["path"]]


def raises(kind, function, *arguments, **options):
    try:
        result = function(*arguments, **options)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} expected, got {result!r}")


def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag(path, content):
    if path.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return git_blob(content)


@check
def model_info_names_commit_and_files():
    info = API.model_info(REPO)
    assert (info.id, info.sha, info.author) == (REPO, NEW_COMMIT, "org")
    assert {s.rfilename for s in info.siblings} == set(files_of(NEW))
    assert API.model_info(REPO, revision=OLD_COMMIT).sha == OLD_COMMIT
    assert API.model_info(REPO, revision="feature/x").sha == OLD_COMMIT
    assert API.model_info("tiny").sha == NEW_COMMIT
    assert API.repo_info(REPO, token="hf_whatever").sha == NEW_COMMIT
    if "expand" in inspect.signature(API.model_info).parameters:
        only_sha = API.model_info(REPO, expand=["sha"])
        assert (only_sha.sha, only_sha.siblings) == (NEW_COMMIT, None)
    assert info.last_modified.year == 2023


@check
def files_metadata_has_the_true_hashes():
    for sibling in API.model_info(REPO, files_metadata=True).siblings:
        content = (NEW / sibling.rfilename).read_bytes()
        assert sibling.size == len(content), sibling
        if sibling.rfilename.endswith(".safetensors"):
            assert sibling.lfs["sha256"] == hashlib.sha256(content).hexdigest()
        else:
            assert sibling.lfs is None and sibling.blob_id == git_blob(content), sibling


@check
def listings_show_files_and_directories():
    assert set(API.list_repo_files(REPO)) == set(files_of(NEW))
    top = {entry.path: entry for entry in API.list_repo_tree(REPO)}
    assert set(top) == {p.name for p in NEW.iterdir()}
    assert len(top["1_Pooling"].tree_id) == 40
    below = [entry.path for entry in API.list_repo_tree(REPO, "1_Pooling", expand=True)]
    assert sorted(below) == ["1_Pooling/config.json", "1_Pooling/deep"]
    deep = [entry.path for entry in API.list_repo_tree(REPO, "1_Pooling/deep", recursive=True)]
    assert deep == ["1_Pooling/deep/notes.txt"]
    raises(EntryNotFoundError, lambda: list(API.list_repo_tree(REPO, "none")))
    paths = ["a b%20c+ü.txt", "1_Pooling", "none"]
    infos = API.get_paths_info(REPO, paths, expand=True, revision=OLD_COMMIT)
    assert [info.path for info in infos] == paths[:2]
    assert infos[0].last_commit.oid == OLD_COMMIT


@check
def branches_and_models_are_listed():
    refs = API.list_repo_refs(REPO)
    branches = {branch.name: branch.target_commit for branch in refs.branches}
    assert branches == {"main": NEW_COMMIT, "feature/x": OLD_COMMIT}, branches
    assert [model.id for model in API.list_models(author="org")] == ["org/flaky", REPO]
    assert [model.id for model in API.list_models(search="MINILM")] == [
        "sentence-transformers/all-MiniLM-L6-v2"
    ]
    assert len(list(API.list_models(limit=2))) == 2


@check
def single_files_are_cached_by_their_true_etags():
    for path, content in files_of(NEW).items():
        local = pathlib.Path(hf_hub_download(REPO, path))
        assert local.read_bytes() == content, path
        assert local.resolve().name == etag(path, content), path
        assert NEW_COMMIT in str(local)
    old = hf_hub_download(REPO, "config.json", revision=OLD_COMMIT)
    assert pathlib.Path(old).read_bytes() == (OLD / "config.json").read_bytes()
    branch = hf_hub_download(REPO, "config.json", revision="feature/x", local_dir="by-branch")
    assert pathlib.Path(branch).read_bytes() == (OLD / "config.json").read_bytes()
    sub = hf_hub_download("tiny", "config.json", subfolder="1_Pooling")
    assert pathlib.Path(sub).read_bytes() == (NEW / "1_Pooling/config.json").read_bytes()


@check
def snapshots_are_complete_and_repeated_at_no_cost():
    for options in ({}, {"local_dir": "snapshot"}, {"cache_dir": "other-cache"}):
        folder = pathlib.Path(snapshot_download(REPO, **options))
        assert files_of(folder) == files_of(NEW), options
        recorded()
        snapshot_download(REPO, **options)
        assert downloads(recorded()) == [], options
    folder = snapshot_download(REPO, revision=OLD_COMMIT, local_dir="snapshot")
    assert files_of(pathlib.Path(folder)) == files_of(OLD)
    some = snapshot_download(REPO, allow_patterns=["*.json"], local_dir="some")
    assert set(files_of(pathlib.Path(some))) == {p for p in files_of(NEW) if p.endswith(".json")}


@check
def a_local_copy_without_bookkeeping_is_recognised_by_its_hash():
    target = pathlib.Path("bare")
    target.mkdir()
    (target / "model.safetensors").write_bytes((NEW / "model.safetensors").read_bytes())
    recorded()
    hf_hub_download(REPO, "model.safetensors", local_dir=target)
    assert downloads(recorded()) == []


@check
def the_real_model_arrives_whole():
    folder = snapshot_download("sentence-transformers/all-MiniLM-L6-v2", local_dir="real")
    assert files_of(pathlib.Path(folder)) == files_of(REAL)


@check
def what_is_missing_raises_the_librarys_own_errors():
    for function in (API.model_info, snapshot_download, API.list_repo_files, API.list_repo_refs):
        error = raises(RepositoryNotFoundError, function, "org/none")
        assert error.response.status_code == 404
    raises(RepositoryNotFoundError, hf_hub_download, "org/none", "config.json")
    raises(RepositoryNotFoundError, API.dataset_info, REPO)
    raises(RepositoryNotFoundError, hf_hub_download, REPO, "x", repo_type="dataset")
    for revision in ("v9", "refs/pr/1", "0" * 40):
        raises(RevisionNotFoundError, API.model_info, REPO, revision=revision)
        raises(RevisionNotFoundError, hf_hub_download, REPO, "config.json", revision=revision)
        raises(RevisionNotFoundError, snapshot_download, REPO, revision=revision)
    raises(EntryNotFoundError, hf_hub_download, REPO, "none.bin")
    raises(EntryNotFoundError, hf_hub_download, REPO, "1_Pooling")
    assert API.file_exists(REPO, "config.json") and API.file_exists(REPO, "a b%20c+ü.txt")
    assert not API.file_exists(REPO, "none") and not API.file_exists("org/none", "config.json")
    assert not API.file_exists(REPO, "config.json", revision="v9")
    assert API.repo_exists(REPO) and not API.repo_exists("org/none")
    # The library has noted that this file is not there, and does not ask again.
    known = huggingface_hub.try_to_load_from_cache(REPO, "none.bin")
    assert known is huggingface_hub._CACHED_NO_EXIST, known


@check
def what_is_not_served_is_refused_at_once():
    for function, arguments in (
        (API.whoami, {"token": "hf_x"}),
        (API.create_repo, {"repo_id": "org/new", "token": "hf_x"}),
        (
            API.upload_file,
            {"path_or_fileobj": b"x", "path_in_repo": "x", "repo_id": REPO, "token": "hf_x"},
        ),
    ):
        error = raises((HfHubHTTPError, OSError), function, **arguments)
        assert error.response.status_code == 501, error


@check
def parts_of_files_are_read_at_will():
    metadata = API.get_safetensors_metadata(REPO)
    assert metadata.weight_map == {"weight": "model.safetensors"}
    files = HfFileSystem()
    assert f"{REPO}/1_Pooling" in files.ls(REPO, detail=False)
    weights = (NEW / "model.safetensors").read_bytes()
    with files.open(f"{REPO}/model.safetensors", block_size=100_000) as remote:
        remote.seek(1_234_567)
        assert remote.read(7) == weights[1_234_567:1_234_574]
        remote.seek(-9, 2)
        assert remote.read() == weights[-9:]


@check
def a_broken_download_is_resumed_where_it_broke():
    recorded()
    for _ in range(3):
        try:
            local = hf_hub_download("org/flaky", "weights.bin")
            break
        except OSError as error:
            print(f"     broken once: {type(error).__name__}")
    assert pathlib.Path(local).read_bytes() == (FLAKY / "weights.bin").read_bytes()
    ranges = [entry["range"] for entry in downloads(recorded())]
    assert len(ranges) == 2 and ranges[0] is None, ranges
    begin = int(ranges[1].removeprefix("bytes=").split("-")[0])
    assert 10 << 20 <= begin <= 15 << 20, ranges


def main():
    print(f"huggingface_hub {huggingface_hub.__version__}")
    for function in CHECKS:
        function()
        print(f"  ok {function.__name__}", flush=True)
    print("all checks passed")


main()
