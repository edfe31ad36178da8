"""Account and quality of service on a Slurm that enforces them: slurmdbd on a real MariaDB."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeep.engines.slurm import SlurmEngine, job_name
from lightkeep.engines.slurm_commands import Slurm, local_runner
from lightkeep.model.engines import Task
from lightkeep.model.errors import RunFailed
from lightkeep.testing.suites.engine import HERE

pytestmark = pytest.mark.cluster
WITH_SLURM = Path(__file__).parents[2] / "scripts" / "with-slurm"
SQUARE = Task(f"{HERE}:square", {"value": 3})


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Slurm with accounts beside the suite's own; return its configuration."""
    told = tmp_path_factory.mktemp("accounts") / "conf"
    script = f'echo "$SLURM_CONF" > {told}.part; mv {told}.part {told}; read -r _ignored'
    with subprocess.Popen(
        [str(WITH_SLURM), "sh", "-c", script],
        env=os.environ | {"LIGHTKEEP_SLURM_ACCOUNTS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as server:
        deadline = time.monotonic() + 60
        while not told.exists():
            assert server.poll() is None, "it did not start"
            assert time.monotonic() < deadline, "it did not start in a minute"
            time.sleep(0.1)
        yield told.read_text().strip()
        assert server.stdin is not None
        server.stdin.close()


def engine(conf: str, folder: Path, **more: object) -> SlurmEngine:
    given = {"account": "aps", "workers": 1, "poll_s": 0.3, "folder": str(folder / "engine"), **more}
    runner = local_runner(os.environ | {"SLURM_CONF": conf})
    return SlurmEngine(runner=runner, **given)  # type: ignore[arg-type]


def test_account_and_qos_reach_the_job(conf: str, tmp_path: Path) -> None:
    made = engine(conf, tmp_path, qos="realtime")
    assert made.map([SQUARE], key="run_qos", folder=tmp_path / "jobs") == [9]
    slurm = Slurm(local_runner(os.environ | {"SLURM_CONF": conf}))
    name = job_name("run_qos", 1)
    answer = slurm.run(["squeue", "--noheader", "--states=all", f"--name={name}", "--format=%a|%q"], "")
    assert answer.out.split() == ["aps|realtime"]


@pytest.mark.parametrize(
    ("asked", "words"), [({"account": "nobody"}, "account"), ({"account": "aps", "qos": "gold"}, "qos")]
)
def test_what_an_account_may_not_have_is_refused_in_slurms_words(
    conf: str, tmp_path: Path, asked: dict[str, str], words: str
) -> None:
    with pytest.raises(RunFailed, match=f"(?i)invalid .*{words}") as caught:
        engine(conf, tmp_path, **asked).map([SQUARE])
    assert f"--{words}=" in caught.value.remedy


def test_the_qos_of_the_beam_preempts_the_usual_one(conf: str, tmp_path: Path) -> None:
    command = [
        "sbatch",
        "--parsable",
        "-Aaps",
        "-N2",
        "-n4",
        "--requeue",
        "-o/dev/null",
        "-t5",
        "--wrap=sleep 120",
    ]
    slurm = Slurm(local_runner(os.environ | {"SLURM_CONF": conf}))
    usual = slurm.run(command, "").out.strip()
    deadline = time.monotonic() + 30
    while slurm.jobs(usual)[0].state != "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert engine(conf, tmp_path, qos="realtime").map([SQUARE]) == [9]
    assert slurm.jobs(usual)[0].state != "COMPLETED"
    slurm.cancel(usual)
