"""What each piece of IPython syntax becomes in Python.

A replacement is exact, or it raises: a script never goes on without what its notebook did.
"""

from __future__ import annotations

import ast
import builtins
import re
import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass

__all__ = [
    "ALIASES",
    "KEPT",
    "KNOWN",
    "Replacement",
    "raising",
    "replace_cell_magic",
    "replace_line_magic",
    "replace_output",
    "replace_shell",
    "statement_of",
]


@dataclass(frozen=True)
class Replacement:
    """Python in place of IPython syntax.

    Parameters
    ----------
    code : str
        Statements, not indented; empty if nothing runs.
    did : str
        What was done, as the closing table says it.
    look : str or None
        What a person must do.
    """

    code: str
    did: str
    look: str | None = None


KEPT = frozenset({
    "capture", "debug", "heat", "lprun", "memit", "memray_flamegraph", "mprun", "prun",
    "pyinstrument", "scalene", "snakeviz", "time", "wlprun",
})  # fmt: skip
"""Magics that run their statement in the notebook's own namespace, and measure it."""

_TIMED = frozenset({"timeit"})

# Magics that set up the editor, or only show something about it: no value depends on them.
_EDITOR = frozenset({
    "alias_magic", "autoreload", "aimport", "autosave", "automagic", "bookmark", "colors", "conda",
    "config", "connect_info", "doctest_mode", "ed", "edit", "gui", "hist", "history", "load",
    "load_ext", "loadpy", "logoff", "logon", "logstart", "logstate", "logstop", "lsmagic", "magic",
    "mamba", "man", "matplotlib", "micromamba", "nb_black", "notebook", "page", "pastebin", "pdb",
    "pdef", "pdoc", "pfile", "pinfo", "pinfo2", "pip", "popd_", "precision", "profile",
    "psearch", "psource", "qtconsole", "quickref", "reload_ext", "uv", "tb", "unload_ext",
    "version_information", "watermark", "who", "who_ls", "whos", "xmode",
})  # fmt: skip

ALIASES = frozenset({
    "cat", "cp", "ldir", "less", "lf", "lk", "ll", "ln", "ls", "lx", "mkdir", "more", "mv", "rm",
    "rmdir",
})  # fmt: skip
"""Line magics that stand for a shell command."""

_ALIAS_COMMANDS = {
    "ls": "ls -F",
    "ll": "ls -F -l",
    "lf": "ls -F -l",
    "lk": "ls -F -l",
    "lx": "ls -F -l",
    "ldir": "ls -F -l",
    "less": "cat",
    "more": "cat",
}

KNOWN = KEPT | _TIMED | _EDITOR | ALIASES | {"cd", "env", "pwd", "pylab", "run", "set_env", "store"}
"""Line magics that IPython also takes without their percent sign."""

_VALUED = {  # options that take a value, by magic
    "prun": "lsTD",
    "lprun": "fmTDsur",
    "mprun": "fTD",
    "memit": "rti",
    "debug": "b",
    "time": "",
    "timeit": "nrp",
    "capture": "",
}

_SHOWN = {
    "html": "HTML", "HTML": "HTML", "javascript": "Javascript", "js": "Javascript",
    "latex": "Latex", "markdown": "Markdown", "svg": "SVG", "SVG": "SVG",
}  # fmt: skip

_SCRIPTS = frozenset({
    "bash", "perl", "pypy", "python", "python2", "python3", "ruby", "script", "sh",
})  # fmt: skip

_ADVICE = {
    "sql": "write pandas.read_sql(query, connection)",
    "bigquery": "write google.cloud.bigquery.Client().query(query).to_dataframe()",
    "R": "write it in Python, or run Rscript by subprocess.run()",
    "cython": "put the code into a package that setup.py compiles, and import it",
    "store": "declare the value as an output, and read it with research_jobs.load()",
    "run": "import the file, or read its outputs with research_jobs.load()",
    "rerun": "write the statements again, or a function",
    "recall": "write the statements again, or a function",
    "macro": "write a function",
    "timeit": "write timeit.timeit(...)",
    "cd": "build paths from Path(__file__).parent",
}


def raising(shown: str, advice: str) -> Replacement:
    """A statement that stops the run and says what to write."""
    message = f"{_first_line(shown)} does not run here: {advice}"
    return Replacement(
        f"raise NotImplementedError({message!r})", f"{_head(shown)} raises", f"{shown}: {advice}"
    )


def _first_line(text: str) -> str:
    first = text.strip().split("\n", 1)[0]
    return first if len(first) <= 60 else f"{first[:56]} ..."


def _head(text: str) -> str:
    return text.split(None, 1)[0] if text.strip() else text


def statement_of(name: str, line: str) -> str:
    """The statement behind a magic's options."""
    valued = _VALUED.get(name)
    rest = line.strip()
    while match := re.match(r"--?([A-Za-z][\w-]*)(=\S+)?(?:\s+|$)", rest):
        option, rest = match[1], rest[match.end() :]
        if match[2] is not None or rest.startswith("-"):
            continue
        known = valued is not None
        if len(option) == 1 and option in valued if known else _python(rest) is None:
            rest = re.sub(r"^\S+\s*", "", rest)
    return rest


def _python(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def replace_line_magic(
    name: str, line: str, assigned: str, names: Collection[str]
) -> Replacement | str:
    """What a line magic becomes; a bare string is a statement that IPython reads in its turn."""
    shown = f"%{name} {line}".strip()
    if name in KEPT:
        return f"{assigned}{statement_of(name, line)}"
    if name in _TIMED and not assigned:
        return Replacement("", "%timeit left out")
    if name in _EDITOR and not assigned:
        left = "installs left out" if name in _INSTALLERS else "editor's settings left out"
        return Replacement("", left)
    if name in ALIASES:
        command = f"{_ALIAS_COMMANDS.get(name, name)} {line}".strip()
        return (
            replace_output(command, assigned, names) if assigned else replace_shell(command, names)
        )
    rule = _LINES.get(name)
    replaced = rule(line, assigned, names) if rule is not None else None
    if replaced is not None:
        return Replacement(replaced, f"%{name} in Python")
    return raising(shown, _ADVICE.get(name, "write it in Python"))


def _cd(line: str, assigned: str, names: Collection[str]) -> str | None:
    target = line.removeprefix("-q").strip().strip("'\"")
    if assigned or target.startswith("-"):
        return None
    where = expanded(target or "~", names)
    if where is None:
        return None
    return f"import os\nos.chdir(os.path.expanduser({where}))"


def _pwd(line: str, assigned: str, names: Collection[str]) -> str | None:
    del names
    return None if line else f"import os\n{assigned}os.getcwd()"


def _env(line: str, assigned: str, names: Collection[str]) -> str | None:
    if not line:
        return f"import os\n{assigned}dict(os.environ)"
    match = re.match(r"(\w+)(?:\s*=\s*|\s+)(\S.*)$", line)
    if match is None:
        return f"import os\n{assigned}os.environ[{line!r}]" if line.isidentifier() else None
    value = expanded(match[2].strip(), names)
    return None if assigned or value is None else f"import os\nos.environ[{match[1]!r}] = {value}"


def _pylab(line: str, assigned: str, names: Collection[str]) -> str | None:
    del names
    if assigned:
        return None
    code = (
        "import numpy\nimport matplotlib\nfrom matplotlib import pylab, mlab, pyplot\n"
        "np = numpy\nplt = pyplot\n"
    )
    if "--no-import-all" not in line:
        code += "from matplotlib.pylab import *\nfrom numpy import *\n"
    return (
        f"{code}from IPython.core.pylabtools import figsize, getfigs\n"
        "from IPython.display import display"
    )


def _run(line: str, assigned: str, names: Collection[str]) -> str | None:
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    inside = words[:1] == ["-i"]
    words = words[inside:]
    if assigned or len(words) != 1 or words[0].startswith("-") or words[0].endswith(".ipynb"):
        return None
    file = words[0] if words[0].endswith((".py", ".ipy")) else f"{words[0]}.py"
    path = expanded(file, names)
    if path is None or file.endswith(".ipy"):
        return None
    if inside:
        return f"import pathlib\nexec(compile(pathlib.Path({path}).read_bytes(), {path}, 'exec'))"
    return (
        f"import runpy\nglobals().update({{name: value for name, value in "
        f"runpy.run_path({path}, run_name='__main__').items() if not name.startswith('__')}})"
    )


_LINES: dict[str, Callable[[str, str, Collection[str]], str | None]] = {
    "cd": _cd,
    "pwd": _pwd,
    "env": _env,
    "set_env": _env,
    "pylab": _pylab,
    "run": _run,
}

_INSTALLERS = frozenset({"pip", "conda", "mamba", "micromamba", "uv"})
_INSTALLS = re.compile(
    r"\s*(?:sudo\s+)?(?:(?:python3?|\{sys\.executable\})\s+-m\s+)?"
    r"(?:pip3?|conda|mamba|micromamba|uv|apt|apt-get|brew)\b(?!.*[;&|])"
)
_BASH = re.compile(r"\[\[|<\(|\bsource\s|\{\w*,|\$'|&>|<<<")


def replace_shell(command: str, names: Collection[str]) -> Replacement:
    """What ``!command`` becomes."""
    if _INSTALLS.match(command):
        return Replacement("", "installs left out")
    text = expanded(command, names)
    if text is None or command.rstrip().endswith("&"):
        return raising(f"!{command}", "write subprocess.run(...) in Python")
    shell = ", executable='/bin/bash'" if _BASH.search(command) else ""
    return Replacement(
        f"import subprocess\nsubprocess.run({text}, shell=True{shell}, check=False);",
        "! as subprocess.run",
    )


def replace_output(command: str, assigned: str, names: Collection[str]) -> Replacement:
    """What ``lines = !command`` and ``!!command`` become."""
    text = expanded(command, names)
    if text is None:
        return raising(f"{assigned}!{command}", "write subprocess.run(...) in Python")
    shell = ", executable='/bin/bash'" if _BASH.search(command) else ""
    return Replacement(
        f"import subprocess\n{assigned}subprocess.run({text}, shell=True{shell}, check=False, "
        "stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout.splitlines()",
        "! as subprocess.run",
    )


def replace_cell_magic(name: str, line: str, body: str, names: Collection[str]) -> Replacement:
    """What a cell of another language, a file or a measurement becomes."""
    shown = f"%%{name} {line}".strip()
    if name in _TIMED:
        return Replacement("", "%%timeit left out")
    if name in _SHOWN and not line:
        shows = f"IPython.display.{_SHOWN[name]}({_literal(body)})"
        return Replacement(
            f"import IPython.display\nIPython.display.display({shows})",
            f"%%{name} shown by IPython",
        )
    if name in ("writefile", "file"):
        code = _written(line, body, names)
        if code is not None:
            return Replacement(code, f"%%{name} as write_text")
    if name in _SCRIPTS:
        code = _script(name, line, body)
        if code is not None:
            return Replacement(code, f"%%{name} as subprocess.run")
    if name in ("sx", "system", "!") and not line:
        return replace_output(body.rstrip("\n"), "", ())
    return raising(
        shown, _ADVICE.get(name, f"%%{name} cells run in Jupyter only; write it in Python")
    )


def _written(line: str, body: str, names: Collection[str]) -> str | None:
    append = bool(re.match(r"(?:-a|--append)\s+", line))
    file = re.sub(r"^(?:-a|--append)\s+", "", line).strip()
    if len(file) > 1 and file[0] == file[-1] and file[0] in "\"'":
        file = file[1:-1]
    path = expanded(file, names)
    if not file or file.startswith("-") or path is None:
        return None
    home = ".expanduser()" if file.startswith("~") else ""
    target = f"pathlib.Path({path}){home}"
    text = _literal(body)
    if append:
        return (
            f"import pathlib\nwith {target}.open('a', encoding='utf-8') as _file:\n"
            f"    _file.write({_one_line(body)})"
        )
    return f"import pathlib\n{target}.write_text({text}, encoding='utf-8');"


def _script(name: str, line: str, body: str) -> str | None:
    check = True
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    if "--no-raise-error" in words:
        words.remove("--no-raise-error")
        check = False
    if any(word.startswith("--") for word in words) or "$" in line or "{" in line:
        return None
    command = words if name == "script" else [name, *words]
    if not command:
        return None
    return (
        f"import subprocess\nsubprocess.run({command!r}, input={_literal(body)}, text=True, "
        f"check={check});"
    )


_MARKER_LIKE = re.compile(r"^\#[ \t]*(?:%%|In ?\[|<|COMMAND|Databricks)|^\#{20}", re.MULTILINE)


def _literal(text: str) -> str:
    """A string literal of the text, over several lines where a person can read it so."""
    plain = "\\" not in text and '"""' not in text and not text.endswith('"')
    printable = all(c.isprintable() or c == "\n" for c in text)
    if plain and printable and "\n" in text and not _MARKER_LIKE.search(text):
        return f'"""\\\n{text}"""'
    return _one_line(text)


def _one_line(text: str) -> str:
    lines = text.splitlines(keepends=True)
    if len(lines) < 2:
        return repr(text)
    return "(\n" + "".join(f"        {line!r}\n" for line in lines) + "    )"


def expanded(text: str, names: Collection[str]) -> str | None:
    """The source of a string in which IPython has put values for ``{name}`` and ``$name``.

    IPython leaves a text as it is when any of its fields cannot be evaluated. None if there is no
    literal for it.
    """
    if "{" not in text and "$" not in text:
        return repr(text)
    from IPython.utils.text import DollarFormatter

    known = {*names, *dir(builtins)}
    parts: list[str] = []
    fields = False
    try:
        for literal, field, spec, conversion in DollarFormatter().parse(text):
            parts.append(_escaped(literal).replace("{", "{{").replace("}", "}}"))
            if field is None:
                continue
            fields = True
            expression = (f"{field}:{spec}" if spec else field).strip()
            if not _names_read(ast.parse(expression, mode="eval")) <= known:
                return repr(text)
            if re.search(r'["\\\n{}]', expression):
                return None
            parts.append(f"{{{expression}{'!' + conversion if conversion else ''}}}")
    except (ValueError, SyntaxError):
        return repr(text)
    source = "".join(parts)
    if fields:
        return f'f"{source}"'
    return repr("".join(literal for literal, *_ in DollarFormatter().parse(text)))


def _names_read(tree: ast.AST) -> set[str]:
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {name.id for name in names if not isinstance(name.ctx, ast.Load)}
    return {name.id for name in names} - bound


def _escaped(text: str) -> str:
    """A text between double quotes."""
    return "".join(
        f"\\{c}" if c in '\\"' else c if c.isprintable() else repr(c)[1:-1] for c in text
    )
