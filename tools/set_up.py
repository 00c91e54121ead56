"""Make the environment of the book and install what it needs; do nothing where that is done already.

    python3 tools/set_up.py reading       # what `make book` needs
    python3 tools/set_up.py everything    # and what the notebooks and the tests need: PyTorch, TensorFlow, JupyterLab
    python3 tools/set_up.py core --venv .venv-other --numpy 1.26    # what the tests without PyTorch need
    python3 tools/set_up.py everything -- --extra-index-url ADDRESS     # after "--": further arguments of pip

The environment is made again where it was made for another place (a folder renamed or copied) or by a Python that is no
longer there, and the packages are installed again where their list changed.

Written for any Python, also one that is too old for the book and must be told so: no f-strings, no annotations.
"""
# ruff: noqa: RUF005, UP010, UP020, UP024, UP031

from __future__ import print_function

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOWEST, HIGHEST = (3, 11), (3, 13)
MARKER = "made-by-set-up.json"  # in the environment: where it was made, for which Python, and what is installed
REQUIREMENTS = {
    "reading": ["requirements-book.txt"],
    "everything": ["requirements-book.txt", "requirements.txt"],
    "core": ["requirements-core.txt"],
}
# Each would lead pip, or the Python of the environment, to another place than the environment.
UNWANTED = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PYTHONHOME", "PYTHONPATH")


class SetUpError(Exception):
    """What is wrong, in one line."""


def problem(version, has_venv, system=os.name):
    """Return the line that says why this Python will not do, or None where it will."""
    if system == "nt":
        return "The book needs Linux or macOS: on Windows, use WSL."
    if not LOWEST <= tuple(version[:2]) <= HIGHEST:
        return (
            "The book needs Python %d.%d to %d.%d, and this one is %d.%d. "
            "Name another, as in: make book PYTHON=python3.12" % (LOWEST + HIGHEST + tuple(version[:2]))
        )
    if not has_venv:
        return (
            "Python %d.%d has no venv module. "
            "Install it (Debian, Ubuntu: apt-get install python%d.%d-venv) and try again." % (tuple(version[:2]) * 2)
        )
    return None


def python_of(venv):
    return os.path.join(venv, "bin", "python")


def version_of(venv):
    """Return the version ("3.12") of the Python that an environment has now, or None where none runs."""
    command = [python_of(venv), "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        with open(os.devnull, "wb") as nothing:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=nothing).communicate()[0].decode().strip()
    except OSError:
        return None


def place(path):
    """Return where a path leads, in the same letters whatever the locale says of their bytes."""
    path = os.path.realpath(path)
    return os.fsencode(path).decode("utf-8", "backslashreplace") if hasattr(os, "fsencode") else path


def read_marker(venv):
    try:
        with io.open(os.path.join(venv, MARKER), encoding="utf-8") as file:
            return json.load(file)
    except (IOError, OSError, ValueError):
        return None


def write_marker(venv, marker):
    with open(os.path.join(venv, MARKER), "wb") as file:
        file.write(json.dumps(marker, indent=1, sort_keys=True).encode("ascii"))


def state_of(venv, marker, version):
    """Return what an environment is: "missing", "ours", "stale" (to be made again) or "foreign" (not to be touched).

    Args:
        marker: what `read_marker` says of it.
        version: what `version_of` says of it.
    """
    if marker is not None:
        here = marker.get("environment") == place(venv)
        return "ours" if here and version and marker.get("python") == version else "stale"
    if not os.path.lexists(venv) or (os.path.isdir(venv) and not os.listdir(venv)):
        return "missing"
    try:  # made by hand, with `python3 -m venv`: its scripts know where
        with io.open(os.path.join(venv, "bin", "activate"), encoding="utf-8", errors="replace") as file:
            here = os.path.abspath(venv) in file.read()
    except (IOError, OSError):
        here = False
    return "ours" if here and version else "foreign"


def digest(kind, numpy=None):
    """Return a digest of what is to be installed: of the lists of packages, and where bnbook itself is."""
    said = [place(ROOT), numpy or ""]
    for name in REQUIREMENTS[kind] + ["pyproject.toml"]:
        with io.open(os.path.join(ROOT, name), encoding="utf-8") as file:
            said.append(file.read())
    return hashlib.sha256("\0".join(said).encode("utf-8")).hexdigest()


def make(venv, again):
    """Make an environment that has nothing but pip."""
    try:
        import ensurepip  # noqa: F401
        import venv as module  # noqa: F401

        has_venv = True
    except ImportError:
        has_venv = False
    wrong = problem(sys.version_info, has_venv)
    if wrong:
        raise SetUpError(wrong)
    if os.pathsep in os.path.abspath(venv):
        raise SetUpError("%s holds a %r, which no environment can: move the folder." % (venv, os.pathsep))
    if again:
        print("%s belongs to another folder or Python: it is made again." % venv)
        for name in os.listdir(venv):
            path = os.path.join(venv, name)
            if name != MARKER:
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
    elif not os.path.isdir(venv):
        os.makedirs(venv)
    write_marker(venv, {})  # from here on it may be cleared, wherever this is interrupted
    if subprocess.call([sys.executable, "-m", "venv", venv], env=environment()):
        raise SetUpError("%s could not be made; Python's own words are above." % venv)


def environment():
    """Return the variables that Python and pip are to see; they write files in UTF-8, whatever the locale."""
    wanted = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    wanted["PYTHONUTF8"] = "1"
    return wanted


def install(venv, arguments):
    """Run pip in the environment; its errors are shown, and the last one is kept for the line at the end."""
    # "--no-user": pip's own configuration file may say the contrary
    command = [python_of(venv), "-m", "pip", "--disable-pip-version-check", "install", "--no-user"] + arguments
    pip = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE)
    error = ""
    for line in iter(pip.stderr.readline, b""):
        text = line.decode("utf-8", "replace").rstrip()
        print(text, file=sys.stderr)
        if text.startswith("ERROR: "):
            error = text[len("ERROR: ") :]
    if pip.wait():
        raise SetUpError(why(error))


def why(error):
    """Return the line for what pip said last."""
    if "No matching distribution found" in error:
        return (
            "%s: the index of packages cannot be reached, or has no such package for Python %d.%d on %s %s. "
            "Try again, or name another Python with PYTHON=python3.12, or another NumPy."
            % ((error,) + tuple(sys.version_info[:2]) + (platform.system(), platform.machine()))
        )
    return "The packages could not be installed (%s). Run the same again: what is there already is kept." % (
        error or "pip's own words are above"
    )


def set_up(kind, venv, named=False, numpy=None, pip=()):
    """Bring an environment to what `kind` needs.

    Args:
        named: whether this Python was asked for, and another one in the environment is a mistake.
        numpy: the version of NumPy, "1.26"; None for the one that is pinned, or with `core` the latest.
        pip: further arguments of pip.
    """
    marker, version = read_marker(venv), version_of(venv)
    state = state_of(venv, marker, version)
    if state == "foreign":
        raise SetUpError("%s is there and is no environment of this folder: remove it, or name another VENV." % venv)
    mine = "%d.%d" % tuple(sys.version_info[:2])
    if state == "ours" and named and version != mine:
        raise SetUpError("%s has Python %s, not %s: remove it, or name another VENV." % (venv, version, mine))
    if state in ("missing", "stale"):
        make(venv, again=state == "stale")
        marker, version = None, version_of(venv)
    wanted = digest(kind, numpy)
    installed = (marker or {}).get("installed", {})
    if installed.get(kind) == wanted:
        return
    marker = {"environment": place(venv), "python": version, "installed": {}}
    write_marker(venv, marker)
    arguments = list(pip) + ["-r", REQUIREMENTS[kind][-1]]
    if numpy:
        arguments += ["numpy==%s.*" % numpy]
    install(venv, arguments)
    marker["installed"] = {kind: wanted}
    if kind == "everything":
        marker["installed"]["reading"] = digest("reading")
    write_marker(venv, marker)


def main(arguments):
    pip = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(REQUIREMENTS))
    parser.add_argument("--venv", default=".venv", help="the folder of the environment (default: .venv)")
    parser.add_argument("--named", action="store_true", help="refuse an environment of another Python than this one")
    parser.add_argument("--numpy", help="the version of NumPy, as in 1.26")
    known = parser.parse_args(own)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a path may have letters that this terminal has not
    try:
        set_up(known.kind, os.path.join(ROOT, known.venv), known.named, known.numpy, pip)
    except SetUpError as error:
        return str(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
