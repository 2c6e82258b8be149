"""Shell scripts and the commands in documents keep to bash 3.2 and BSD tools, those of macOS."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob("egs/**/*.sh"), *ROOT.glob(".ci/*"), *ROOT.glob("benchmarks/**/*.sh")])
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("egs/*/*/*.md")])

# What bash 3.2, BSD's tools or macOS lack, each with a line that it must find.
FOREIGN = {
    r"(?<![-\w])(realpath|nproc|tac|timeout|shuf|numfmt|setsid|ionice)(?![-\w])": 'x=$(realpath "$1")',
    r"\breadlink +-f\b": 'readlink -f "$0"',
    r"\bstat +(-c|--format|--printf)": "stat -c %s file",
    r"\bsed +(-[a-z]+ +)*(-i|--in-place)([ =]|$)": "sed -i s/a/b/ file",
    r"\bsed +(-[a-zE]+ +)*(-r|--regexp-extended)\b": "sed -r 's/(a)/b/' file",
    r"\bsed .*[^;{ ]\}'": "sed -n '2,/x/{/x/d;p}' file",
    r"\bgrep +(-[a-zA-Z]*P|--perl-regexp)": "grep -oP a file",
    r"\b(head|tail) +-n +-\d": "head -n -1 file",
    r"\bfind .*(-printf|-quit)\b": "find . -name a -print -quit",
    r"\bxargs +(-[a-z0-9]+ +)*-[a-z]*r\b": "xargs -r rm",
    r"\bdate +(-d|--date|-I|--iso|\+%s%N)": "date -d yesterday",
    r"\bsplit +(-n|--number|-d|--additional)": "split -n l/4 file",
    r"\b(cp|mv|ln) +(-[a-z]+ +)*(-t|-T|--[a-z]+|-[a-z]*r[a-z]*s?) .*": "ln -rs a b",
    r"\bmktemp +(--[a-z]+|-p)\b": "mktemp --tmpdir",
    r"\b(mapfile|readarray|coproc)\b": "mapfile -t lines < file",
    r"\b(declare|local|typeset) +-[a-z]*[Ang]": "declare -A table",
    r"\bwait +-n\b": "wait -n",
    r"\bshopt +-s +(globstar|lastpipe|inherit_errexit)": "shopt -s globstar",
    r"\$\{[a-z_]+(\[.*\])?(,,?|\^\^?|@[A-Za-z])": "echo ${name,,}",
    r"\$\{[a-z_]+\[-\d+\]": "echo ${list[-1]}",
    r"\[\[ +-v\b": "[[ -v name ]]",
    r"&>>|\|&|;;&|;&": "make &>> log",
    r"printf +['\"]%\(": "printf '%(%s)T'",
    r"\{\d+\.\.\d+\.\.\d+\}|\{0\d+\.\.": "echo {01..10}",
}


def commands(path: Path) -> list[tuple[int, str]]:
    """Numbers and texts of the lines that a shell reads, without comments: all of a script, blocks of a page."""
    lines, inside = [], path.suffix != ".md"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if path.suffix == ".md" and line.strip().startswith("```"):
            inside = line.strip() in ("```bash", "```sh")
        elif inside:
            lines.append((number, re.sub(r"(^|\s)#\s.*", "", line)))
    return lines


def foreign(line: str) -> list[str]:
    return [found[0] for pattern in FOREIGN if (found := re.search(pattern, line))]


def unguarded(text: str) -> list[str]:
    """Arrays that may be empty, expanded without ``${name[@]+...}``: an error under ``set -u`` before bash 4.4."""
    arrays = set(re.findall(r"\b(\w+)=\( *\)", text))
    bare = re.sub(r"\$\{(\w+)\[@\]\+\"\$\{\1\[@\]\}\"\}", "", text)
    return [name for name in sorted(arrays) if f"${{{name}[@]}}" in bare]


@pytest.mark.parametrize("path", [*SCRIPTS, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_one_of_macos(path):
    assert [(number, found) for number, line in commands(path) if (found := foreign(line))] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_parse_and_guard_empty_arrays(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert unguarded(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("pattern", "line"), FOREIGN.items(), ids=FOREIGN.values())
def test_each_pattern_finds_what_it_is_for(pattern, line):
    assert re.search(pattern, line)


def test_an_unguarded_array_is_found():
    assert unguarded('pids=()\nfor pid in "${pids[@]}"; do :; done') == ["pids"]
    assert unguarded('pids=()\nfor pid in ${pids[@]+"${pids[@]}"}; do :; done\nall=(a)\necho "${all[@]}"') == []
