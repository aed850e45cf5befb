"""Python processes for tests, forked from one that has imported the libraries: each begins seconds earlier than a fresh
one, and shares nothing else with it. Of opsin itself nothing is imported before."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_LIBRARIES = [
    "lightning.pytorch",
    "matplotlib",
    "numpy",
    "PIL.Image",
    "pydantic",
    "torch",
    "torchvision",
    "typer",
    "yaml",
]
# What a fresh process would have: its folder, variables, streams, arguments, and no sign of the fork.
_CHILD = """
import atexit, multiprocessing, os, runpy, sys, types
for number, file in ((1, out), (2, err)):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
os.chdir(cwd)
os.environ.clear()
os.environ.update(env)
found = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
sys.path[:] = ["", *found, *(place for place in sys.path if place and place not in found)]
multiprocessing.set_start_method(None, force=True)
multiprocessing.process._parent_process = None
try:
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = [words[1], *words[2:]]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
finally:
    atexit._run_exitfuncs()
"""


def run_python(
    words: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, *words])` gives: its exit status, and what it wrote.

    words: -c and code, or -m and a module, and arguments; anything else runs in a fresh process, as all do where
    processes cannot be forked.
    """
    variables = dict(os.environ if env is None else env)
    if sys.platform != "linux" or words[0] not in ("-c", "-m"):
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=timeout
        )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    with tempfile.TemporaryDirectory() as folder:
        out, err = f"{folder}/out", f"{folder}/err"
        given = {"words": list(words), "cwd": str(cwd), "env": variables, "out": out, "err": err}
        process = context.Process(target=exec, args=(_CHILD, given))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(words), timeout)
        streams = [Path(file).read_text(encoding="utf-8", errors="backslashreplace") for file in (out, err)]
        return subprocess.CompletedProcess(list(words), process.exitcode, *streams)
