from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from amlctl.config.settings import KNOWN, load_settings, parse_size
from amlctl.core.settings import MIB, Settings, SubmitSettings, SyncSettings, WorkspaceSettings
from amlctl.errors import SettingsError, UsageError
from amlctl.localfs.project import Project

EXAMPLE = """\
default_workspace = "local"
experiment = "ScreencopyDetection"

[workspaces.local]
compute = "local"              # the engine
store = "file:///mnt/share/store"

[workspaces.cloud]
compute = "azureml"
subscription_id = "s"
resource_group = "OXO-ML-Sunnyvale"
workspace_name = "OXO-ML-Sunnyvale"
default_compute = "gpu"

[sync]
layout = "pack"
pack_below = "512KiB"
pack_size = 1000
ignore = [
    "**/.ipynb_checkpoints/",
    "a = b",
]

[submit]
mode = "download"
fetch = false
on_interrupt = "detach"
"""


def load(
    folder: Path,
    text: str,
    variables: Mapping[str, str] | None = None,
    *,
    user: str | None = None,
    workspace: str | None = None,
) -> Settings:
    (folder / ".amlctl.toml").write_text(text)
    user_file = folder / "home" / "config.toml"
    if user is not None:
        user_file.parent.mkdir(exist_ok=True)
        user_file.write_text(user)
    return load_settings(Project(folder), variables or {}, user_file=user_file, workspace=workspace)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    assert settings.workspace() == WorkspaceSettings("local", "local", ".amlctl/store")
    assert (settings.sync, settings.submit) == (SyncSettings(), SubmitSettings())
    assert (settings.sync.pack_below, settings.sync.pack_size) == (MIB, 64 * MIB)
    assert "sync.layout" not in settings.origins


def test_every_key_is_read(tmp_path: Path) -> None:
    settings = load(tmp_path, EXAMPLE)
    assert settings.experiment == "ScreencopyDetection"
    assert settings.workspaces["local"].store == "file:///mnt/share/store"
    assert settings.workspaces["cloud"] == WorkspaceSettings(
        "cloud",
        "azureml",
        default_compute="gpu",
        subscription_id="s",
        resource_group="OXO-ML-Sunnyvale",
        workspace_name="OXO-ML-Sunnyvale",
    )
    assert settings.sync == SyncSettings("pack", 512 * 1024, 1000, ("**/.ipynb_checkpoints/", "a = b"))
    assert settings.submit == SubmitSettings("download", False, "detach")


def test_the_strongest_layer_wins_and_is_remembered(tmp_path: Path) -> None:
    user = 'experiment = "user"\n[sync]\nlayout = "mirror"\n[submit]\nmode = "download"\n'
    project = 'experiment = "project"\n\n[sync]\nlayout = "pack"\n'
    variables = {"AMLCTL_EXPERIMENT": "variable", "AMLCTL_SYNC_LAYOUT": "", "AMLCTL_SYNC_PACK_SIZE": "2MiB"}
    settings = load(tmp_path, project, variables, user=user)
    assert settings.experiment == "variable"
    assert settings.sync.layout == "pack"
    assert settings.sync.pack_size == 2 * MIB
    assert settings.submit.mode == "download"
    assert settings.origins["experiment"] == "AMLCTL_EXPERIMENT"
    assert settings.origins["sync.layout"] == ".amlctl.toml:4"
    assert settings.origins["sync.pack_size"] == "AMLCTL_SYNC_PACK_SIZE"
    assert settings.origins["submit.mode"] == f"{tmp_path}/home/config.toml:5"
    assert "submit.fetch" not in settings.origins


def test_the_workspace_in_use(tmp_path: Path) -> None:
    two = EXAMPLE.replace('default_workspace = "local"', 'default_workspace = "cloud"')
    assert load(tmp_path, two).workspace().name == "cloud"
    assert load(tmp_path, two, {"AMLCTL_WORKSPACE": "local"}).workspace().name == "local"
    chosen = load(tmp_path, two, {"AMLCTL_WORKSPACE": "local"}, workspace="cloud")
    assert chosen.workspace().name == "cloud"
    assert chosen.origins["default_workspace"] == "--workspace"


def test_variables_of_a_workspace_are_for_the_one_in_use(tmp_path: Path) -> None:
    variables = {"AMLCTL_STORE": "/elsewhere", "AMLCTL_COMPUTE": "big", "AMLCTL_SUBMIT_FETCH": "No"}
    settings = load(tmp_path, EXAMPLE, variables, workspace="cloud")
    assert settings.workspaces["cloud"].store == "/elsewhere"
    assert settings.workspaces["cloud"].default_compute == "big"
    assert settings.workspaces["local"].store == "file:///mnt/share/store"
    assert settings.submit.fetch is False


def test_a_user_can_add_to_a_workspace_of_the_project(tmp_path: Path) -> None:
    user = '[workspaces.cloud]\nsubscription_id = "mine"\ndefault_compute = "cpu"\n'
    project = '[workspaces.cloud]\ncompute = "azureml"\nresource_group = "r"\nworkspace_name = "w"\nstore = "x"\n'
    cloud = load(tmp_path, project, user=user, workspace="cloud").workspace()
    assert (cloud.subscription_id, cloud.default_compute, cloud.store) == ("mine", "cpu", "x")


def test_every_variable_of_the_list_works(tmp_path: Path) -> None:
    values = {
        "AMLCTL_WORKSPACE": "local",
        "AMLCTL_SYNC_LAYOUT": "mirror",
        "AMLCTL_SYNC_PACK_BELOW": "10",
        "AMLCTL_SYNC_PACK_SIZE": "20",
        "AMLCTL_SUBMIT_MODE": "download",
        "AMLCTL_SUBMIT_FETCH": "false",
        "AMLCTL_SUBMIT_ON_INTERRUPT": "cancel",
    }
    for known in KNOWN:
        if name := known.variable:
            settings = load(tmp_path, "", {name: values.get(name, "other")})
            assert settings.origins[known.key.replace("NAME", "local")] == name


def test_every_setting_is_known() -> None:
    defaults = asdict(Settings())
    sections = {name: value for name, value in defaults.items() if name in ("sync", "submit", "cache", "runs")}
    expected = {f"{name}.{key}" for name, section in sections.items() for key in section}
    expected |= {f"workspaces.NAME.{key}" for key in defaults["workspaces"]["local"] if key != "name"}
    expected |= defaults.keys() - sections.keys() - {"workspaces", "origins", "broken"}
    assert {known.key for known in KNOWN} == expected


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ('a = 1\n[sync]\nlayout = "auto"\n', 1, "unknown key a", "experiment"),
        ('[sync]\nlayuot = "auto"\n', 2, "sync.layuot", "did you mean layout?"),
        ('sync.layuot = "auto"\n', 1, "sync.layuot", "layout"),
        ('[ "sync" ]\n\n"layuot" = "auto"\n', 3, "layuot", "layout"),
        ("\n[synk]\n", 2, "section [synk]", "did you mean sync?"),
        ("\nsync = 3\n", 2, "section", "[sync]"),
        ("workspaces = 3\n", 1, "section", "[workspaces.NAME]"),
        ('[workspaces]\nlocal = "x"\n', 2, "section", "[workspaces.local]"),
        ('[workspaces.local]\ncompute = "local"\nstor = "a"\n', 3, "workspaces.local.stor", "did you mean store?"),
        ('default_workspace = "x"\n[workspaces.x]\nstore = "a"\n', 2, "no compute", "azureml"),
        ('[workspaces.local]\ncompute = "azurml"\n', 2, "did you mean azureml?", ""),
        ('[workspaces.local]\nname = "x"\n', 2, "unknown key", ""),
        ('[sync]\nlayout = "packs"\n', 2, "did you mean pack?", ""),
        ("[sync]\nlayout = [1]\n", 2, "auto, pack, mirror", ""),
        ('[sync]\npack_size = "64 parsecs"\n', 2, "64 parsecs", ""),
        ("[sync]\npack_size = 0\n", 2, "1 byte", ""),
        ('[sync]\npack_size = "2GiB"\n', 2, "1GiB", ""),
        ("[sync]\npack_size = true\n", 2, "size", ""),
        ('[workspaces.local]\nstore = "a\\u0000b"\n', 2, "NUL character", ""),
        ("[sync]\npack_size = 1.5\n", 2, "size", ""),
        ('[sync]\nignore = "*.tmp"\n', 2, "list", ""),
        ("[sync]\nignore = [1]\n", 2, "list", ""),
        ('[submit]\nfetch = "yes"\n', 2, "true or false, without quotes", ""),
        ('[submit]\nmode = "copy"\n', 2, "mount, download", ""),
        ("experiment = 3\n", 1, "string", ""),
        ('experiment = ""\n', 1, "must not be empty", ""),
        ("[experiment]\n", 1, "string", ""),
        ('experiment = "a"\nbroken =\n', 2, "TOML", ""),
        ('experiment = "a\n', 1, "TOML", ""),
        ('x = """\nabc', 2, "TOML", ""),
        ('experiment = "a"\nexperiment = "b"\n', 2, "TOML", ""),
        ('default_workspace = "clout"\n[workspaces.cloud]\ncompute="azureml"\n', 1, "clout", "did you mean cloud?"),
        ('experiment = """\n[sync]\nlayuot = 1\n"""\n[sync]\nlayuot = 2\n', 6, "layuot", ""),
    ],
)
def test_an_error_says_where(tmp_path: Path, text: str, line: int, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert caught.value.message.startswith(f".amlctl.toml:{line}:")
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("variables", "workspace", "message"),
    [
        ({"AMLCTL_WORKSPACE": "clowd"}, None, "AMLCTL_WORKSPACE: unknown workspace 'clowd'"),
        ({"AMLCTL_WORKSPACE": "clowd", "AMLCTL_STORE": "x"}, None, "AMLCTL_WORKSPACE: unknown workspace"),
        ({}, "clowd", "--workspace: unknown workspace 'clowd'"),
        ({"AMLCTL_SYNC_LAYOUT": "flat"}, None, "AMLCTL_SYNC_LAYOUT: sync.layout"),
        ({"AMLCTL_SUBMIT_FETCH": "maybe"}, None, "AMLCTL_SUBMIT_FETCH: submit.fetch"),
        ({"AMLCTL_EXPERIMENT": " "}, None, "AMLCTL_EXPERIMENT: experiment must not be empty"),
        ({"AMLCTL_SYNC_PACK_BELOW": "-1"}, None, "AMLCTL_SYNC_PACK_BELOW: sync.pack_below"),
    ],
)
def test_an_error_names_the_variable(
    tmp_path: Path, variables: dict[str, str], workspace: str | None, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, EXAMPLE, variables, workspace=workspace)
    assert caught.value.message.startswith(message)
    assert "quotes" not in caught.value.message


def test_an_azureml_workspace_in_use_needs_its_address(tmp_path: Path) -> None:
    text = '[workspaces.cloud]\ncompute = "azureml"\nresource_group = "r"\n'
    assert load(tmp_path, text).workspace().name == "local"
    with pytest.raises(SettingsError, match="no subscription_id and no workspace_name"):
        load(tmp_path, text, workspace="cloud")


@pytest.mark.parametrize(
    "line",
    [
        'store = "https://x.blob.core.windows.net/c?sv=2024&sig=hunter22"',
        'store = "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=hunter22;"',
        'store = "https://me:hunter22@example.org/store"',
        'endpoint = "https://x/?a=b&sig=hunter22"',
        'account_key = "hunter22"',
        'sas_token = "hunter22"',
        'connection_string = "hunter22"',
        'password = "hunter22"',
    ],
)
@pytest.mark.parametrize("is_users", [True, False])
def test_a_secret_in_a_file_is_refused_and_not_shown(tmp_path: Path, line: str, is_users: bool) -> None:
    text = f'[workspaces.cloud]\ncompute = "azureml"\n{line}\n'
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, "" if is_users else text, user=text if is_users else "")
    shown = caught.value.message + caught.value.hint + repr(caught.value.__cause__)
    assert "toml:3: " in caught.value.message
    assert "AZURE_STORAGE_SAS_TOKEN" in shown
    assert "hunter22" not in shown


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / ".amlctl.toml").write_bytes(b'experiment = "\xff"\n')
    with pytest.raises(SettingsError, match=r"\.amlctl\.toml is not UTF-8"):
        load_settings(Project(tmp_path), {}, user_file=None)
    (tmp_path / ".amlctl.toml").write_bytes(b'\xef\xbb\xbfexperiment = "x"\r\n')
    assert load_settings(Project(tmp_path), {}, user_file=None).experiment == "x"


def test_the_projects_own_file_can_be_used() -> None:
    root = Path(__file__).parents[3]
    assert load_settings(Project(root), {}, user_file=None).workspace().compute == "local"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *[("0", 0), ("17", 17), ("17B", 17), ("1KiB", 1024), ("1kB", 1000), ("1k", 1024), (" 64 MiB ", 64 * MIB)],
        *[
            ("1MB", 10**6),
            ("1.5MiB", MIB * 3 // 2),
            ("2gib", 2 << 30),
            ("1TB", 10**12),
            ("9007199254740993", 2**53 + 1),
        ],
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "1.", "1 2", "1XB", "1e6", "١", "1MiBs", "0x10", "9" * 5_000, f"{'9' * 400}.5"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="Invalid size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("section", "line", "message"),
    [
        ('compute = "local"\nstor = "a"\n', 3, "workspaces.x.stor"),
        ('store = "a"\n', 1, "no compute"),
        ('compute = "slurm"\n', 2, "local, azureml"),
    ],
)
def test_a_broken_workspace_matters_only_where_it_is_used(
    tmp_path: Path, section: str, line: int, message: str
) -> None:
    text = f"[workspaces.x]\n{section}"
    settings = load(tmp_path, text)
    assert settings.workspace().name == "local"
    assert list(settings.workspaces) == ["local"]
    for action in (lambda: settings.workspace("x"), lambda: load(tmp_path, text, workspace="x")):
        with pytest.raises(SettingsError) as caught:
            action()
        assert caught.value.message.startswith(f".amlctl.toml:{line}: ")
        assert message in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 3000 + "]" * 3000, "a = " + "9" * 5000, 'a = "\\ud800"', "a = 2024-13-45", "a = 0x" + "f" * 9000],
)
def test_toml_that_python_cannot_hold_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"\.amlctl\.toml"):
        load(tmp_path, text)
