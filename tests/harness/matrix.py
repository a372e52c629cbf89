"""The one list of client versions, and what each of them can do."""

from dataclasses import dataclass
from pathlib import Path

from .paths import VENVS


@dataclass(frozen=True)
class ClientVersion:
    """A version of the client package and the parts of its interface that differ between versions."""

    number: str
    has_build: bool  # @modal.build
    has_constructor_arguments: bool  # classes with __init__(self, …)
    has_parameters: bool  # modal.parameter()
    has_copy_local: bool  # Image.copy_local_file and copy_local_dir
    has_add_local: bool  # Image.add_local_file and add_local_dir
    has_uv: bool  # Image.uv_pip_install and uv_sync
    has_image_build: bool  # Image.build
    has_image_id: bool  # Image.from_id
    has_lookup: bool  # Function.lookup, where newer ones have only from_name
    names_apps_by_flag: bool  # `modal app logs --name X`, where newer ones take the name itself
    deletes_network_files: bool  # NetworkFileSystem.delete and `modal nfs delete`
    stop_asks: bool  # `modal app stop` wants --yes without a terminal
    has_volume_blocks: bool  # version 2 of Volumes, whose files are uploaded in blocks
    has_volume_rename: bool  # Volume.rename and `modal volume rename`
    has_volume_objects: bool  # Volume.objects and Volume.info
    has_function_env: bool  # `env=` of functions and classes
    deletes_secrets: bool  # `modal secret delete`
    has_required_keys: bool  # Secret.from_name(required_keys=…)
    has_secret_objects: bool  # Secret.objects, Secret.update and Secret.info
    has_history: bool  # `modal app history` and `modal app rollback`
    has_rollover: bool  # `modal app rollover`, tags of apps and `modal app info`
    has_app_lookup: bool  # App.lookup
    has_batches: bool  # @modal.batched and @modal.concurrent
    has_spawn_map: bool  # Function.spawn_map and FunctionCall.get_gen
    has_startup_timeout: bool  # startup_timeout= of functions and classes
    splits_lines: bool  # read_file_into_fileobj of a version 2 Volume fails where 128 KiB have no line break

    @property
    def python(self) -> Path:
        return VENVS / f"client-{self.number}" / "bin" / "python"

    def __str__(self) -> str:
        return self.number


CLIENT_VERSIONS = (
    ClientVersion(
        "0.63.99",
        has_build=True,
        has_constructor_arguments=True,
        has_parameters=False,
        has_copy_local=True,
        has_add_local=False,
        has_uv=False,
        has_image_build=False,
        has_image_id=False,
        has_lookup=True,
        names_apps_by_flag=True,
        deletes_network_files=False,
        stop_asks=False,
        has_volume_blocks=False,
        has_volume_rename=False,
        has_volume_objects=False,
        has_function_env=False,
        deletes_secrets=False,
        has_required_keys=False,
        has_secret_objects=False,
        has_history=False,
        has_rollover=False,
        has_app_lookup=False,
        has_batches=False,
        has_spawn_map=False,
        has_startup_timeout=False,
        splits_lines=False,
    ),
    ClientVersion(
        "0.77.0",
        has_build=True,
        has_constructor_arguments=True,
        has_parameters=True,
        has_copy_local=True,
        has_add_local=True,
        has_uv=False,
        has_image_build=False,
        has_image_id=True,
        has_lookup=True,
        names_apps_by_flag=False,
        deletes_network_files=True,
        stop_asks=False,
        has_volume_blocks=True,
        has_volume_rename=True,
        has_volume_objects=False,
        has_function_env=False,
        deletes_secrets=True,
        has_required_keys=True,
        has_secret_objects=False,
        has_history=True,
        has_rollover=False,
        has_app_lookup=True,
        has_batches=True,
        has_spawn_map=True,
        has_startup_timeout=False,
        splits_lines=True,
    ),
    ClientVersion(
        "1.6.4",
        has_build=False,
        has_constructor_arguments=False,
        has_parameters=True,
        has_copy_local=False,
        has_add_local=True,
        has_uv=True,
        has_image_build=True,
        has_image_id=True,
        has_lookup=False,
        names_apps_by_flag=False,
        deletes_network_files=True,
        stop_asks=True,
        has_volume_blocks=True,
        has_volume_rename=True,
        has_volume_objects=True,
        has_function_env=True,
        deletes_secrets=True,
        has_required_keys=True,
        has_secret_objects=True,
        has_history=True,
        has_rollover=True,
        has_app_lookup=True,
        has_batches=True,
        has_spawn_map=True,
        has_startup_timeout=True,
        splits_lines=False,
    ),
)
