"""Install this checkout into .venv, with the extras named on the command line.

Called by scripts/mbctl and scripts/test. Runs on any Python 3 and finds a suitable one.
Several may run at once: one installs and the others wait for it.
"""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VERSIONS = ("3.13", "3.12", "3.11", "3.14")


def suitable_python():
    """The first interpreter that is new enough, beginning with the one that runs this."""
    if sys.version_info >= (3, 11):  # noqa: UP036
        return sys.executable
    for version in VERSIONS:
        found = shutil.which("python" + version)
        if found and subprocess.call([found, "-c", "import venv"], stderr=subprocess.DEVNULL) == 0:
            return found
    sys.exit("mbctl needs Python 3.11 or newer; this is " + sys.version.split()[0])


def is_done(stamp):
    """Whether an installation from today's pyproject.toml has been finished."""
    return stamp.exists() and stamp.read_bytes() == (ROOT / "pyproject.toml").read_bytes()


def install(extras):
    """Make the environment if needed, and install the project in it, editable."""
    stamps = [VENV / name for name in ("installed", *("installed-" + e for e in extras))]
    VENV.mkdir(exist_ok=True)
    with open(VENV / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(map(is_done, stamps)):
            return
        print("installing mbctl into " + str(VENV) + " ...", file=sys.stderr, flush=True)
        python = VENV / "bin" / "python"
        if not (VENV / "bin" / "pip").exists():
            subprocess.check_call([suitable_python(), "-m", "venv", str(VENV)])
        project = str(ROOT) + ("[" + ",".join(extras) + "]" if extras else "")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.check_call([*pip, "--editable", project], stdout=sys.stderr)
        # Compiled now, so that commands start fast also where Python may not write later.
        subprocess.check_call([str(python), "-m", "compileall", "-q", str(ROOT / "mbctl")])
        for stamp in stamps:
            shutil.copyfile(ROOT / "pyproject.toml", stamp)


if __name__ == "__main__":
    try:
        install(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit("installing failed: " + " ".join(map(str, error.cmd)))
    except KeyboardInterrupt:
        os._exit(130)
