"""The notebook of a sweep: its parameters, read from the cell tagged ``parameters`` without executing anything."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from workbench.errors import path_of, unknown_name
from workbench.sweeps import values
from workbench.sweeps.files import Json
from workbench.sweeps.values import ParameterError, Parameters

TAG = "parameters"
DIRECTORY = "directory"  # the parameter by which a run is told where its results go
SEED = "seed"


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: ``name: annotation = default  # comment``."""

    name: str
    annotation: str
    default: object
    comment: str = ""

    def check(self, value: object) -> object:
        """``value`` as this parameter takes it; ``ValueError`` naming it, what was expected, and the comment."""
        try:
            fitting = values.fit(values.plain(value), values.annotation(self.annotation))
        except ParameterError as error:
            expected = str(error)
        else:
            names = values.choices(self.comment)
            if names and isinstance(fitting, str) and fitting not in names:
                raise unknown_name(self.name, fitting, names)
            wrong = values.expected_by(self.comment, fitting)
            if wrong is None:
                return fitting
            expected = wrong
        about = f" ({self.comment})" if self.comment else ""
        raise ValueError(
            f"{self.name} is {value!r}; the notebook declares {self.name}: {self.annotation}{about}, and expects "
            f"{expected.rstrip('.')}."
        )


@dataclass(frozen=True)
class Notebook:
    """A notebook that can be swept.

    path         where it was read from
    source       the notebook as JSON, without outputs
    parameters   {name: Parameter}
    """

    path: Path
    source: str
    parameters: Mapping[str, Parameter]

    @property
    def content(self) -> Json:
        """The notebook as plain data."""
        content: Json = json.loads(self.source)
        return content

    @cached_property
    def kernel(self) -> str:
        """The name of the kernel that it was written for."""
        return str(self.content["metadata"].get("kernelspec", {}).get("name", "python3"))

    @cached_property
    def digest(self) -> str:
        """Names what the notebook does: a hash of its code but for the parameters, whose values count anew each run.

        The modules beside it that it imports, and those that they import, are code of its own.
        """
        code = [source_of(cell) for cell in code_cells(self.content) if TAG not in tags_of(cell)]
        return hashlib.sha256(json.dumps([*code, *self.helpers.values()]).encode()).hexdigest()[:16]

    @cached_property
    def helpers(self) -> dict[str, str]:
        """{path below the notebook's folder: source} of the modules there that it imports, directly or not."""
        folder, found = self.path.parent, dict[str, str]()
        asked = [name for cell in code_cells(self.content) for name in imported(source_of(cell))]
        while asked:
            place = asked.pop().replace(".", "/")
            for path in (folder / f"{place}.py", folder / place / "__init__.py"):
                name = path.relative_to(folder).as_posix()
                if name not in found and path.is_file():
                    found[name] = path.read_text(encoding="utf-8", errors="replace")
                    asked += imported(found[name])
        return dict(sorted(found.items()))

    def resolve(self, given: Parameters) -> Parameters:
        """All parameters of a run: those given (names that ``plan.check_names`` let in), checked, and the defaults."""
        return {
            name: parameter.check(given[name]) if name in given else parameter.default
            for name, parameter in self.parameters.items()
            if name != DIRECTORY
        }

    @property
    def swept_names(self) -> list[str]:
        """The parameters that a sweep may set."""
        return [name for name in self.parameters if name != DIRECTORY]


def imported(source: str) -> list[str]:
    """The modules that a piece of code imports, and the packages that they are in; lines for IPython are passed over.

    >>> imported("%matplotlib inline\\nimport games.chess as chess\\nfrom rewards import shaped")
    ['games', 'games.chess', 'rewards', 'rewards.shaped']
    """
    plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    try:
        nodes = list(ast.walk(ast.parse(plain)))
    except SyntaxError:
        return []
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            named += [f"{node.module}.{name}" for name in names] if node.module else names
    wholes = [".".join(name.split(".")[: n + 1]) for name in named for n in range(name.count(".") + 1)]
    return list(dict.fromkeys(wholes))


def check_kernel(notebook: Notebook, name: str) -> None:
    """``UnknownNameError`` for a kernel that is not installed here."""
    from jupyter_client.kernelspec import KernelSpecManager

    installed = KernelSpecManager().find_kernel_specs()
    if name not in installed:
        where = f" that {notebook.path.name} was saved with" if name == notebook.kernel else ""
        raise unknown_name(f"kernel{where}", name, installed, "kernel='python3' runs it by this Python's own.")


def read_notebook(path: str | Path) -> Notebook:
    """Read a notebook to sweep over; raises ``FileNotFoundError`` or ``ValueError`` for one that cannot be."""
    path = path_of("notebook", path)
    if not path.is_file():
        near = sorted(each.name for each in path.parent.glob("*.ipynb")) if path.parent.is_dir() else []
        beside = f" Beside it: {', '.join(near)}." if near else ""
        raise FileNotFoundError(f"there is no notebook {str(path)!r}.{beside}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        language = content["metadata"].get("kernelspec", {}).get("language", "python")
        tagged = [cell for cell in code_cells(content) if TAG in tags_of(cell)]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{str(path)!r} is no Jupyter notebook of format 4.") from None
    if language != "python":
        raise ValueError(f"{str(path)!r} is a notebook in {language}; a sweep runs notebooks in Python.")
    if len(tagged) != 1:
        raise ValueError(
            f"{str(path)!r} has {len(tagged)} code cells tagged '{TAG}'; expected one, with the defaults of what a "
            "sweep may set, such as `seed: int = 0`. In JupyterLab: Property Inspector (the gears), Cell Tags."
        )
    parameters = read_parameters(source_of(tagged[0]), str(path))
    if DIRECTORY not in parameters:
        raise ValueError(
            f"{str(path)!r} has no parameter '{DIRECTORY}', by which a run is told where its results go. Add "
            f"`{DIRECTORY}: str | None = None` to its cell tagged '{TAG}', and write results there: "
            "wb.record(trainer, directory, ...)."
        )
    for cell in code_cells(content):
        cell["outputs"], cell["execution_count"] = [], None
    return Notebook(path.absolute(), json.dumps(content), parameters)


def read_parameters(source: str, where: str = "the notebook") -> dict[str, Parameter]:
    """The assignments of a parameters cell, with annotations, comments and defaults; nothing is executed.

    >>> found = read_parameters("lr: float = 5e-4  # > 0: learning rate")
    >>> found["lr"].default, found["lr"].comment
    (0.0005, '> 0: learning rate')
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"the cell tagged '{TAG}' of {where!r} is no Python: {error}.") from None
    comments = comments_of(source)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            name, value, declared = node.target.id, node.value, ast.unparse(node.annotation)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name, value, declared = node.targets[0].id, node.value, ""
        else:
            continue
        comment = comments.get(node.end_lineno or node.lineno, "")
        if typed := re.match(r"type:\s*(?!ignore\b)(\S+)\s*", comment):
            declared, comment = declared or typed[1], comment[typed.end() :]
        try:
            default = values.plain(ast.literal_eval(value))
        except ValueError:
            raise ValueError(
                f"the default of {name} in the cell tagged '{TAG}' of {where!r} is computed ({ast.unparse(value)}); "
                "expected a plain value, such as 0.1, 'random' or (64, 64). Compute in another cell."
            ) from None
        declared = declared or ("Any" if default is None else type(default).__name__)
        parameter = Parameter(name, declared, default, comment)
        try:
            found[name] = replace(parameter, default=parameter.check(default))
        except ValueError as error:
            raise ValueError(f"{where}: {error} Put its default right.") from None
    return found


def comments_of(source: str) -> dict[int, str]:
    """{line: the comment at its end}."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ").strip() for token in tokens if token.type == tokenize.COMMENT}


def code_cells(content: Json) -> list[Json]:
    return [cell for cell in content["cells"] if cell.get("cell_type") == "code"]


def tags_of(cell: Json) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", []))


def source_of(cell: Json) -> str:
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)
