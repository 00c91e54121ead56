"""Say in one line what is wrong with the Python that `make` is about to use, before anything is installed.

Written for any Python, also one that is too old for the book: no f-strings, no annotations.
"""
# ruff: noqa: UP031

import sys

LOWEST, HIGHEST = (3, 11), (3, 13)


def problem(version, has_venv):
    """Return the line to print, or None where this Python will do."""
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


def main():
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401

        has_venv = True
    except ImportError:
        has_venv = False
    sys.exit(problem(sys.version_info, has_venv))


if __name__ == "__main__":
    main()
