"""How long a chapter takes: counted, not guessed, and written into its opening whenever the notebook is written.

Reading is counted at 220 words a minute, formulas as a few words each; visible code at ten lines a minute, the speed of
someone who reads it; an exercise of level n as 5 n minutes. What is folded (code of figures, checks, solutions) is not
counted.
"""

from __future__ import annotations

import re

from nbformat import NotebookNode

WORDS_PER_MINUTE, LINES_PER_MINUTE, MINUTES_PER_LEVEL = 220, 10, 5
FOLDED = {"hide-cell", "hide-input", "remove-cell", "remove-input", "solution", "exercise"}

TIME = re.compile(r"^\*\*Time\*\*.*$", re.MULTILINE)
EXERCISE = re.compile(r"^(`{3,}|:{3,})\{exercise\}.*?^\1$", re.MULTILINE | re.DOTALL)
FURTHER = re.compile(r"^## Further reading$.*", re.MULTILINE | re.DOTALL)
LEVEL = re.compile(r"\blevel ([1-4])\b")
BLOCK = re.compile(r"\$\$(.+?)\$\$(?: \([\w-]+\))?", re.DOTALL)
INLINE = re.compile(r"(?<!\\)\$[^$\n]+\$|`[^`\n]+`")
MARKUP = re.compile(r"^:{3,}.*$|^:\w+:.*$|\]\([^)]*\)|\{[\w:]+\}|[#*|_>-]+", re.MULTILINE)


def words(markdown: str) -> int:
    """The words of a piece of Markdown; a formula or name in a line counts as one, a displayed line as five."""
    lines = sum(block.count("\\\\") + 1 for block in BLOCK.findall(markdown))
    return 5 * lines + len(MARKUP.sub(" ", INLINE.sub("x", BLOCK.sub(" ", markdown))).split())


def visible_lines(cell: NotebookNode) -> int:
    """The lines of code that a reader of the page sees without unfolding anything."""
    if cell.cell_type != "code" or FOLDED & set(cell.metadata.get("tags", [])):
        return 0
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def minutes(nb: NotebookNode) -> tuple[int, int, int]:
    """Minutes to read the words, more for the visible code, and for the exercises."""
    text = "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    levels = [int(level) for match in EXERCISE.finditer(text) for level in LEVEL.findall(match[0])[:1]]
    prose = words(
        FURTHER.sub("", EXERCISE.sub("", TIME.sub("", text)))
    )  # the line itself, filled in or not, does not count
    code = sum(map(visible_lines, nb.cells))
    return (
        max(1, round(prose / WORDS_PER_MINUTE)),
        round(code / LINES_PER_MINUTE),
        MINUTES_PER_LEVEL * sum(levels),
    )


def time_line(nb: NotebookNode) -> str:
    read, code, tasks = minutes(nb)
    return f"**Time**: {read} minute{'s' * (read != 1)} to read, {code} more for the code, {tasks} for the exercises."


def state_time(nb: NotebookNode) -> None:
    """Write the times into the opening, in place, where it has a line for them."""
    for cell in nb.cells:
        if cell.cell_type == "markdown" and TIME.search(cell.source):
            cell.source = TIME.sub(time_line(nb), cell.source, count=1)
            return
