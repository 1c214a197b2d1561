"""The child process that looks at the terminal, ended when it takes too long: a hanging terminal hangs nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Final

from dtms_service.doctor.sights import MARK, STEPS, Failed, Job, Sights, read

COMMAND: Final = (sys.executable, "-m", "dtms_service.doctor.terminal_look")


def sights_of(job: Job, deadline_s: float, command: Sequence[str] = COMMAND) -> Sights:
    """What the child saw within ``deadline_s``."""
    # Files instead of pipes: a terminal that was started by the child inherits them, and would keep a pipe open.
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as complained:
        asked.write(json.dumps(asdict(job)).encode())
        asked.seek(0)
        child = subprocess.Popen(command, stdin=asked, stdout=told, stderr=complained)
        hung = False
        try:
            child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            hung = True
        finally:
            child.kill()
            child.wait()
        told.seek(0)
        lines = told.read().decode("utf-8", "replace").splitlines(keepends=True)
        # Without its end a line is what was being written when the process ended.
        whole = [line.removeprefix(MARK) for line in lines if line.startswith(MARK) and line.endswith("\n")]
        seen = read(whole)
        if hung:
            return replace(seen, hung_in=seen.unfinished)
        if child.returncode:
            complained.seek(0)
            why = complained.read().decode("utf-8", "replace").strip().rpartition("\n")[2] or "no reason given"
            text = f"the look ended with {child.returncode}: {why}"
            seen = replace(seen, failed=Failed(seen.unfinished or STEPS[-1], 0, text, "ChildFailed"))
        return seen
