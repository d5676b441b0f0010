"""The file that an entrypoint names: found, parsed and compared with the parameters, never
imported.

Reports only what is certain: a name that is bound twice, a decorated function or a class is left to
the worker.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from tunesvc.signatures import Arguments
from tunesvc.spec.arguments import argument_issues
from tunesvc.spec.diagnostics import SpecIssue, printable
from tunesvc.spec.model import StudySpec
from tunesvc.util.suggestions import suggest

_KINDS = inspect.Parameter


def entrypoint_issues(
    spec: StudySpec, folder: Path | None, *, names: Collection[str] | None = None
) -> Iterator[SpecIssue]:
    """Yield the reasons why the entrypoint cannot run from `folder`; None leaves that to the
    worker.

    Args:
        spec: the study, which names the entrypoint and the values its function gets.
        folder: where the file is looked up.
        names: all parameters in the file, including those left out of `spec` for issues of their
            own.
    """
    if spec.entrypoint is None:
        return
    module, _, function = spec.entrypoint.partition(":")
    is_file = module.endswith(".py")
    if not is_import_path(spec.entrypoint):
        yield SpecIssue(
            ("entrypoint",),
            "write `module:function` or `path/file.py:function`, such as `train:main`",
        )
        return
    if folder is None:
        return
    path = folder / module if is_file else _path_of(folder, module)
    if not _is_file(path) and (is_file or not _is_installed(folder, module)):
        missing = module if is_file else f"{module.replace('.', '/')}.py"
        elsewhere = "" if is_file else ", and no installed module of that name"
        yield SpecIssue(
            ("entrypoint",),
            f"there is no `{printable(missing)}` in {folder}{elsewhere}",
        )
        return
    tree = _parse(path)
    if isinstance(tree, str):
        yield SpecIssue(("entrypoint",), tree)
    elif tree is not None:
        yield from _broken_imports(tree, folder)
        names = spec.parameters.keys() if names is None else names
        yield from _function_issues(spec, tree, path.name, function, names)


def is_import_path(text: str) -> bool:
    """Return True for `module:name` and `path/file.py:name`."""
    module, colon, name = text.partition(":")
    module_ok = module.endswith(".py") or all(part.strip() for part in module.split("."))
    return bool(colon) and module_ok and all(part.isidentifier() for part in name.split("."))


def _parse(path: Path) -> ast.Module | str | None:
    """Return a file's syntax tree, or its error; None if it is missing or too deeply nested to
    parse."""
    try:
        source = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python shows them when the code runs
            return ast.parse(source)
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        return f"`{printable(path.name)}`{line}: {type(error).__name__}: {printable(error.msg)}"
    except ValueError as error:  # a zero byte
        return f"`{printable(path.name)}`: {error}"
    except (OSError, RecursionError, MemoryError):
        return None


def _broken_imports(tree: ast.Module, folder: Path) -> Iterator[SpecIssue]:
    """Yield syntax errors of modules in the study's folder that the file imports."""
    checked = set(sys.stdlib_module_names)  # imported before the folder is looked at
    pending = list(_imported(tree))
    while pending:
        module = pending.pop(0)
        if module in checked:
            continue
        checked.add(module)
        parsed = _parse(_path_of(folder, module))
        if isinstance(parsed, str):
            yield SpecIssue(("entrypoint",), parsed)
        elif parsed is not None:
            pending += _imported(parsed)


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield modules imported at the top of a file, where nothing catches their errors."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _function_issues(
    spec: StudySpec, tree: ast.Module, file: str, function: str, names: Collection[str]
) -> Iterator[SpecIssue]:
    name, _, method = function.partition(".")
    bound = Counter(_bound_names(tree))
    if "*" in bound or "__getattr__" in bound:
        return
    if name not in bound:
        yield SpecIssue(
            ("entrypoint",),
            f"`{printable(file)}` has no `{name}`{suggest(name, bound)}",
        )
    elif bound[name] == 1 and not method:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == name and not node.decorator_list:
                where = f"`{node.name}` in `{printable(file)}`, line {node.lineno},"
                arguments = Arguments(_signature(node.args))
                if _may_take_config(arguments, bound):
                    continue
                yield from argument_issues(
                    spec,
                    arguments,
                    where,
                    names,
                    ("entrypoint",),
                )


def _may_take_config(arguments: Arguments, bound: Collection[str]) -> bool:
    """Return True if an argument has a class of the file or of a module, maybe a config class."""
    for name in arguments.missing({"trial": None}):
        annotation = str(arguments.signature.parameters[name].annotation)
        first, _, last = annotation.rpartition(".")
        is_class = annotation.replace(".", "").isidentifier() and last[:1].isupper()
        if is_class and last != "Trial" and (first or last).partition(".")[0] in bound:
            return True
    return False


def _signature(args: ast.arguments) -> inspect.Signature:
    """Build a signature from syntax: annotations as text, defaults as syntax nodes."""
    positional = [*args.posonlyargs, *args.args]
    absent: list[object] = [inspect.Parameter.empty] * (len(positional) - len(args.defaults))
    defaults = absent + list(args.defaults)
    parameters = [
        _parameter(arg, _KINDS.POSITIONAL_OR_KEYWORD, default)
        for arg, default in zip(positional, defaults, strict=True)
    ]
    if args.vararg is not None:
        parameters.append(_parameter(args.vararg, _KINDS.VAR_POSITIONAL, _KINDS.empty))
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        parameters.append(
            _parameter(
                arg,
                _KINDS.KEYWORD_ONLY,
                _KINDS.empty if default is None else default,
            )
        )
    if args.kwarg is not None:
        parameters.append(_parameter(args.kwarg, _KINDS.VAR_KEYWORD, _KINDS.empty))
    return inspect.Signature(parameters)


def _parameter(
    arg: ast.arg,
    kind: inspect._ParameterKind,
    default: object,
) -> inspect.Parameter:
    annotation = _KINDS.empty if arg.annotation is None else ast.unparse(arg.annotation)
    return inspect.Parameter(arg.arg, kind, default=default, annotation=annotation)


def _bound_names(tree: ast.Module) -> Iterator[str]:
    """Yield every name bound anywhere in the file; too many is better than refusing a valid one."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]


def _path_of(folder: Path, module: str) -> Path:
    whole = folder / module.replace(".", "/")
    package = whole / "__init__.py"
    return package if _is_file(package) else whole.with_name(f"{whole.name}.py")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _is_installed(folder: Path, module: str) -> bool:
    top = module.split(".")[0]
    try:
        # of the first name only: to look into a package, Python would import it
        return not _is_file(folder / f"{top}.py") and importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False
