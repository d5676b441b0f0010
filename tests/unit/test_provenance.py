"""Provenance: the commit that a folder is at, whether it has changes, and what is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tunesvc.util.provenance import git_state, provenance_of


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "train.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_a_commit_is_named_with_its_branch(repository: Path) -> None:
    state = git_state(repository)
    assert state is not None
    assert len(state["commit"]) == 40
    assert (state["branch"], state["dirty"]) == ("trunk", False)


def test_what_is_in_no_commit_makes_a_folder_dirty(repository: Path) -> None:
    (repository / "new.py").write_text("y = 1\n")
    state = git_state(repository)
    assert state is not None
    assert state["dirty"]


def test_changes_elsewhere_in_the_repository_do_not(repository: Path) -> None:
    (repository / "study").mkdir()
    (repository / "train.py").write_text("x = 2\n")
    state = git_state(repository / "study")
    assert state is not None
    assert not state["dirty"]


def test_a_detached_commit_has_no_branch(repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    state = git_state(repository)
    assert state is not None
    assert state["branch"] is None


def test_without_a_repository_a_commit_or_git_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert "git" not in provenance_of(tmp_path)


def test_packages_are_recorded_with_their_versions(tmp_path: Path) -> None:
    found = provenance_of(tmp_path)
    assert found["packages"]["optuna"][0].isdigit()
    assert found["python"].startswith("3.")
