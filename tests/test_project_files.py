"""What a code host reads: workflows, issue forms and notes of releases fit the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from release_notes import notes

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = [file for file in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if file.name != "config.yml"]


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_runs_files_that_exist(workflow: Path) -> None:
    commands = " ".join(step.get("run", "") for step in steps(workflow))
    named = re.findall(r"(?<![\w/])(?:\.ci|tools)/\S+", commands)
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_has_few_rights_and_ends(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    for name, job in content["jobs"].items():
        assert "timeout-minutes" in job or name == "publish"
    for step in steps(workflow):
        # A branch could change: publishing is the exception that its own action documents.
        assert "uses" not in step or re.search(r"@(v\d|release/v1$)", step["uses"]), step


def test_pushes_are_tested_as_everywhere() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


@pytest.mark.parametrize("form", FORMS, ids=lambda file: file.name)
def test_an_issue_form_is_whole(form: Path) -> None:
    content = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= set(content)
    names = [field["id"] for field in content["body"]]
    assert len(names) == len(set(names))
    for field in content["body"]:
        assert field["type"] in ("input", "textarea") and field["attributes"]["label"]


def test_a_released_version_has_dated_notes() -> None:
    changelog = "# Changelog\n\n## 1.1.0 - unreleased\n\n- new\n\n## 1.0.0 - 2026-01-31\n\n- first\n"
    assert notes(changelog, "1.0.0", released=True) == "- first\n"
    assert notes(changelog, "1.1.0", released=False) == "- new\n"
    with pytest.raises(ValueError, match=r"'## 1.1.0 - unreleased': expected '## 1.1.0 - year-month-day'"):
        notes(changelog, "1.1.0", released=True)
    with pytest.raises(ValueError, match=r"no section '## 2.0.0', only: 1.1.0 - unreleased, 1.0.0"):
        notes(changelog, "2.0.0", released=False)


def test_a_tag_is_the_version() -> None:
    command = [sys.executable, ROOT / "tools/release_notes.py", "--tag", "v9.9.9"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stdout == ""
    assert re.fullmatch(
        r"release: the tag is v9.9.9, the version in Cargo.toml (.+): expected v\1\n", ended.stderr
    )
