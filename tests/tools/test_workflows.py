"""What runs elsewhere names things that exist here: make targets, folders, versions, files."""

import re
import shlex
from pathlib import Path

import build
import environment
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
STEPS = [(name, step) for name, flow in WORKFLOWS.items() for job in flow["jobs"].values() for step in job["steps"]]
ACTION = re.compile(r"actions/[\w-]+@v\d+")


def pythons(flow: dict) -> set[str]:
    """Every version of Python a workflow sets up."""
    found = set()
    for job in flow["jobs"].values():
        for step in job["steps"]:
            if version := step.get("with", {}).get("python-version"):
                found |= set(job["strategy"]["matrix"]["python"]) if "matrix.python" in version else {version}
    return found


def test_there_is_one_to_test_and_one_to_publish():
    assert set(WORKFLOWS) == {"test", "pages"}
    # YAML reads the word `on` as true.
    assert set(WORKFLOWS["test"][True]) == {"push", "pull_request"}
    assert WORKFLOWS["pages"][True]["push"]["branches"] == ["main"]


def test_make_targets_exist():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = [shlex.split(line) for _, step in STEPS for line in step.get("run", "").splitlines()]
    wanted = [words[1] for words in called if words[0] == "make"]
    assert sorted(wanted) == ["html", "test"] and set(wanted) <= set(targets)


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_pythons_are_new_enough(name):
    oldest = re.search(r'requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    floor = tuple(map(int, oldest.groups()))
    versions = {tuple(map(int, version.split("."))) for version in pythons(WORKFLOWS[name])}
    assert versions and min(versions) >= floor == environment.OLDEST
    if name == "test":
        assert floor in versions, "the oldest Python that is promised is tested"


def test_published_folder_is_the_one_that_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "is_current", lambda source, html: True)
    made = build.build(tmp_path, tmp_path).relative_to(tmp_path).as_posix()
    (upload,) = [step for _, step in STEPS if "upload-pages-artifact" in step.get("uses", "")]
    assert upload["with"]["path"] == made
    assert f"`{made}`" in (ROOT / "README.md").read_text()


def test_actions_are_pinned_by_major_version():
    used = [step["uses"] for _, step in STEPS if "uses" in step]
    assert used and all(ACTION.fullmatch(action) for action in used)


def test_publishing_may_write_pages_and_nothing_else():
    assert WORKFLOWS["pages"]["permissions"] == {"contents": "read", "pages": "write", "id-token": "write"}
    assert WORKFLOWS["test"]["permissions"] == {"contents": "read"}
    assert WORKFLOWS["pages"]["concurrency"]["group"] and not WORKFLOWS["pages"]["concurrency"]["cancel-in-progress"]
    assert WORKFLOWS["pages"]["jobs"]["deploy"]["needs"] in WORKFLOWS["pages"]["jobs"]


def test_tests_must_have_a_browser_and_an_end():
    job = WORKFLOWS["test"]["jobs"]["test"]
    assert job["env"]["ATTNLIB_REQUIRE_BROWSER"] == "1" and job["timeout-minutes"] == 90


def test_caches_depend_on_a_file_that_exists():
    files = [step["with"]["cache-dependency-path"] for _, step in STEPS if step.get("with", {}).get("cache")]
    assert files and all((ROOT / file).is_file() for file in files)


def test_hubs_install_the_book_s_versions_and_the_package():
    """repo2docker reads this folder instead of the root, installs from the root, and has an old Python by default."""
    folder = ROOT / ".binder"
    lines = [line for line in (folder / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    included = [folder / line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    assert [path.resolve() for path in included] == [ROOT / "requirements.txt"] and "-e ." in lines
    version = re.fullmatch(r"python-(\d+)\.(\d+)\n", (folder / "runtime.txt").read_text())
    assert tuple(map(int, version.groups())) >= environment.OLDEST
    assert "jupyterlab==" in (ROOT / "requirements.txt").read_text()
