"""Runs every fuzz target for a time and reports the results; exits with 1 at a finding.

just fuzz 60                                   every target for 60 s each
python fuzz/python/run.py 60 --targets image   one of them
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import rules

ROOT = Path(__file__).parents[2]
FUZZ = ROOT / "fuzz"
BUILD = ROOT / "build/fuzz"
RUST_TARGETS = ("image", "session", "storage")
TARGETS = (*RUST_TARGETS, "files")
#: Limits of one input: seconds, MiB of memory, and its length in bytes.
_TIMEOUT, _MEMORY, _LARGEST = 30, 1024, 32_768


@dataclass
class Outcome:
    """The result of a target's run."""

    executions: int
    seconds: float
    #: Refusals that it met.
    met: set[str]
    #: What is wrong, and the command that reproduces it.
    findings: list[tuple[str, str]] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=int, help="for each target")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 2**31))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument(
        "--fresh", action="store_true", help="start from the seeds alone, and keep no corpus in fuzz/corpus"
    )
    arguments = parser.parse_args()
    print(
        f"fuzz: {arguments.seconds} s for each of {', '.join(arguments.targets)}, seed {arguments.seed}",
        flush=True,
    )
    environment = os.environ | {"CARGO_TERM_QUIET": "true"}
    subprocess.run(["cargo", "build", "--locked", "--release"], cwd=FUZZ, env=environment, check=True)

    def run(target: str) -> Outcome:
        by_kind = run_files if target == "files" else run_rust
        return by_kind(target, arguments.seconds, arguments.seed, arguments.fresh)

    # Each target keeps one core busy.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        outcomes = dict(zip(arguments.targets, pool.map(run, arguments.targets), strict=True))
    met = set().union(*(outcome.met for outcome in outcomes.values()))
    report(outcomes, met)
    return 1 if any(outcome.findings for outcome in outcomes.values()) else 0


def run_rust(target: str, seconds: int, seed: int, fresh: bool) -> Outcome:
    """Runs a target that libFuzzer drives."""
    seeds, artifacts = BUILD / "seeds" / target, FUZZ / "artifacts" / target
    corpus = BUILD / "corpus" / target if fresh else FUZZ / "corpus" / target
    for folder in [seeds, *([corpus] if fresh else [])]:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (seeds, corpus, artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    program = binary(target)
    log = BUILD / f"{target}.log"
    with log.open("wb") as output:
        environment = os.environ | {"TORCH_NANO_FUZZ_SEEDS": str(seeds)}
        subprocess.run([program], env=environment, stderr=output, check=True)
    if target == "image":
        import exports

        exports.write(seeds)

    refusals = BUILD / f"{target}.refusals"
    refusals.unlink(missing_ok=True)
    command: list[str | Path] = [
        program,
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-timeout={_TIMEOUT}",
        f"-rss_limit_mb={_MEMORY}",
        f"-max_len={_LARGEST}",
        f"-artifact_prefix={artifacts}/",
        "-print_final_stats=1",
        corpus,
        seeds,
    ]
    start = time.monotonic()
    with log.open("wb") as output:
        environment = os.environ | {"TORCH_NANO_FUZZ_REFUSALS": str(refusals)}
        status = subprocess.run(command, env=environment, stdout=output, stderr=output).returncode
    text = log.read_text(errors="replace")
    executed = re.search(r"number_of_executed_units:\s*(\d+)", text)
    outcome = Outcome(
        int(executed[1]) if executed else 0,
        time.monotonic() - start,
        set(refusals.read_text().splitlines()) if refusals.exists() else set(),
    )
    if status != 0:
        written = re.search(r"Test unit written to (\S+)", text)
        again = f"(cd fuzz && cargo run --release --bin {target} -- {written[1] if written else log})"
        outcome.findings.append((reason(text), again))
    unknown = outcome.met - rules.core() - rules.device()
    if unknown:
        outcome.findings.append(
            (f"fuzz/python/rules.py does not find these refusals: {sorted(unknown)}", "-")
        )
    return outcome


def binary(target: str) -> Path:
    """The path of a target's program in cargo's target folder."""
    host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True, cwd=FUZZ))
    assert host is not None
    folder = Path(os.environ.get("CARGO_TARGET_DIR", FUZZ / "target"))
    return folder / host[1] / "release" / target


def reason(log: str) -> str:
    """The failure in libFuzzer's output."""
    panic = re.search(r"^thread .* panicked at (.*?):\d+:\n(.*)$", log, re.MULTILINE)
    error = re.search(r"ERROR: libFuzzer: (.*)$", log, re.MULTILINE)
    return f"{panic[1]}: {panic[2]}"[:400] if panic else (error[1] if error else "see its log in build/fuzz")


def run_files(target: str, seconds: int, seed: int, fresh: bool) -> Outcome:
    """Runs the target of Python's file readers."""
    script = FUZZ / "python/files.py"
    artifacts = FUZZ / "artifacts" / target
    command: list[str | Path] = [
        sys.executable,
        script,
        str(seconds),
        "--seed",
        str(seed),
        "--output",
        artifacts,
    ]
    log = BUILD / f"{target}.log"
    BUILD.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    again = f"{Path(sys.executable).relative_to(ROOT)} fuzz/python/files.py --reproduce "
    try:
        said = json.loads(done.stdout)
    except ValueError:
        left = ", ".join(str(path) for path in artifacts.glob(f"*-{seed}.*"))
        ended = f"it ended with status {done.returncode}: see {log.relative_to(ROOT)}"
        return Outcome(0, 0, set(), [(ended, again + left)])
    findings = [(finding["text"], again + finding["input"]) for finding in said["findings"]]
    return Outcome(said["executions"], said["seconds"], rules.file_rules_met(said["refusals"]), findings)


def report(outcomes: dict[str, Outcome], met: set[str]) -> None:
    """Prints a table, the numbers of refusals met, and every finding."""
    print(f"{'target':10}{'executions':>12}{'per second':>12}{'refusals met':>14}{'findings':>10}")
    for target, outcome in outcomes.items():
        rate = outcome.executions / max(outcome.seconds, 1e-9)
        print(
            f"{target:10}{outcome.executions:12,}{rate:12,.0f}{len(outcome.met):14}{len(outcome.findings):10}"
        )
    groups: dict[str, tuple[set[str], Sequence[str]]] = {
        "rules of nano-core": (rules.core(), RUST_TARGETS),
        "failures of devices": (rules.device(), RUST_TARGETS),
        "raises of file readers": (rules.files(), ("files",)),
    }
    missing = []
    for name, (known, targets) in groups.items():
        if set(targets) & set(outcomes):
            print(f"{name}: {len(known & met)} of {len(known)} met")
            missing += sorted(known - met)
    (BUILD / "not-met.txt").write_text("".join(f"{refusal}\n" for refusal in missing))
    for target, outcome in outcomes.items():
        for text, again in outcome.findings:
            print(f"FINDING in {target}: {text}\n    again: {again}")


if __name__ == "__main__":
    sys.exit(main())
