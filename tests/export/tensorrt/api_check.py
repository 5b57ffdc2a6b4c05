"""Does every use of TensorRT's and CUDA's Python API in our source exist there? Run with the real bindings importable.

    python -m tests.export.tensorrt.api_check FILE...        prints {"problems": [...], "checked": [...]}

It reads the source, follows the types of values as far as their classes are TensorRT's (from constructors, from the
return types that pybind11 writes into docstrings, from our annotations), and looks every attribute, method, enum member
and argument up. Nothing of the source is executed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: How the source calls the modules that it is checked against.
ROOTS = {"tensorrt": "tensorrt", "trtp": "tensorrt.plugin", "cudart": "cuda.bindings.runtime"}
# Where a docstring was written before the class had a name in Python
_CPP_NAMES = {"nvonnxparser::IParserError": "tensorrt.ParserError"}
_PYBIND = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\)(?: -> (.+))?$")


@dataclass(frozen=True)
class Signature:
    """Parameters of one overload, without self."""

    names: tuple[str, ...]
    required: int
    returns: str | None = None
    variadic: bool = False

    def takes(self, call: ast.Call) -> bool:
        """Whether a call's positional count and keyword names fit."""
        given = {keyword.arg for keyword in call.keywords}
        if self.variadic or None in given or any(isinstance(value, ast.Starred) for value in call.args):
            return True
        free = self.names[len(call.args) :]
        return (
            len(call.args) <= len(self.names)
            and given <= set(free)
            and all(name in given for name in self.names[len(call.args) : self.required])
        )


def signatures_of(function: Any) -> list[Signature]:
    """The overloads of a function, from Python's own signature or from the docstring of a compiled one."""
    documented = inspect.getdoc(function) or ""
    found = []
    for line in documented.splitlines():
        match = _PYBIND.match(line.strip())
        if match is not None and match[1] == getattr(function, "__name__", "") and "*args" not in match[2]:
            found.append(_parsed(match[2], match[3]))
    if found:
        return found
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    variadic = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
    named = [p for p in parameters if p.name != "self"]
    required = sum(p.default is p.empty for p in named)
    return [Signature(tuple(p.name for p in named), required, None, variadic)]


def _parsed(arguments: str, returns: str | None) -> Signature:
    """``self: X, name: str, flags: int = 0`` -> names and how many have no default."""
    parts, depth, current = [], 0, ""
    for letter in arguments:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and not depth:
            parts.append(current)
            current = ""
        else:
            current += letter
    parts = [part.strip() for part in (*parts, current) if part.strip()]
    # `size_t size` of Cython, `name: type = default` of pybind11
    names = [re.split(r"[:=]", part)[0].strip().split()[-1] for part in parts]
    kept = [(name, part) for name, part in zip(names, parts, strict=True) if name != "self"]
    required = sum("=" not in re.sub(r"<[^>]*>", "", part) for _, part in kept)
    return Signature(tuple(name for name, _ in kept), required, returns)


@dataclass
class Checker(ast.NodeVisitor):
    """Walks one file.

    Attributes:
        problems: one line for each use that does not exist. checked: the uses that do.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)
    scopes: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    returns: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    def run(self, source: str) -> None:
        tree = ast.parse(source)
        for node in ast.walk(tree):  # first what functions and fields are declared to be
            if isinstance(node, ast.FunctionDef):
                self.returns[node.name] = self.declared(node.returns)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                self.fields[node.target.id] = self.declared(node.annotation)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                target = node.targets[0]
                if isinstance(target.value, ast.Name) and target.value.id == "self":
                    self.fields.setdefault(target.attr, None)
        quiet = self.problems, self.checked
        self.problems, self.checked = [], set()
        self.visit(tree)  # types of fields become known
        self.problems, self.checked = quiet
        self.visit(tree)

    # -- what a value is ----------------------------------------------------------------------------------------------

    def declared(self, annotation: ast.expr | None) -> Any:
        """The class behind an annotation such as ``tensorrt.Builder``, or None."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        found = self.type_of(annotation) if isinstance(annotation, ast.Attribute) else None
        return found.thing if isinstance(found, Itself) else None

    def type_of(self, node: ast.expr | None) -> Any:
        """The class of a value, `Itself` for a module, class or function, or None where nobody knows."""
        if isinstance(node, ast.Name):
            for scope in reversed(self.scopes):
                if node.id in scope:
                    return scope[node.id]
            return Itself(importlib.import_module(ROOTS[node.id])) if node.id in ROOTS else None
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        return None

    def attribute(self, node: ast.Attribute) -> Any:
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return self.fields.get(node.attr)
        owner = self.type_of(node.value)
        if owner is None:
            return self.fields.get(node.attr) if isinstance(node.value, ast.Name) else None
        thing = owner.thing if isinstance(owner, Itself) else owner
        label = f"{_label(thing)}.{node.attr}"
        if not _has(thing, node.attr):
            self.problems.append(f"{self.name}:{node.lineno}: {label} does not exist")
            return None
        self.checked.add(label)
        found = getattr(thing, node.attr, None)
        if not isinstance(owner, Itself) and not callable(found):
            return None  # a property says nothing of its type
        return Itself(found, label, of_class=isinstance(owner, Itself) and inspect.isclass(thing))

    def call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id in self.returns:
            return self.returns[node.func.id]
        of_self = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "self"
        if of_self and node.func.attr in self.returns:
            return self.returns[node.func.attr]
        called = self.type_of(node.func)
        if not isinstance(called, Itself):
            return None
        thing = called.thing
        label = called.label or _label(thing)
        overloads = signatures_of(thing.__init__ if inspect.isclass(thing) else thing)
        call = node
        if called.of_class and not inspect.isclass(thing):  # Base.method(self, ...)
            call = ast.Call(func=node.func, args=node.args[1:], keywords=node.keywords)
        if overloads and not _is_enum(thing) and not any(overload.takes(call) for overload in overloads):
            shown = " or ".join(f"({', '.join(overload.names)})" for overload in overloads)
            self.problems.append(f"{self.name}:{node.lineno}: {label} takes {shown}")
        else:
            self.checked.add(f"{label}()")
        if inspect.isclass(thing):
            return thing
        returned = next((overload.returns for overload in overloads if overload.returns), "") or ""
        return _class_named(returned)

    # -- the walk -----------------------------------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.attribute(node)
        if not isinstance(node.value, ast.Attribute):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.call(node)
        for part in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.visit(part)
        if isinstance(node.func, ast.Attribute):
            self.visit(node.func.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        found = self.type_of(node.value)
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for name, value in zip(target.elts, node.value.elts, strict=False):
                    if isinstance(name, ast.Name):
                        self.scopes[-1][name.id] = self.type_of(value)
            elif isinstance(target, ast.Name):
                self.scopes[-1][target.id] = found
            elif isinstance(target, ast.Attribute):
                if isinstance(target.value, ast.Name) and target.value.id == "self":
                    self.fields[target.attr] = self.fields.get(target.attr) or found
                else:
                    self.attribute(target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self.scopes[-1][node.target.id] = self.declared(node.annotation)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        for argument in arguments:
            if argument.annotation is not None:
                self.visit(argument.annotation)
        self.scopes.append({argument.arg: self.declared(argument.annotation) for argument in arguments})
        for statement in node.body:
            self.visit(statement)
        self.scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            found = self.type_of(base)
            if isinstance(found, Itself) and inspect.isclass(found.thing):
                self._overrides(node, found.thing)
        self.generic_visit(node)

    def _overrides(self, node: ast.ClassDef, base: type) -> None:
        """What a subclass defines for TensorRT to call must be what TensorRT calls."""
        for method in node.body:
            if not isinstance(method, ast.FunctionDef) or method.name.startswith("_") or method.decorator_list:
                continue
            if not hasattr(base, method.name):
                self.problems.append(f"{self.name}:{method.lineno}: {_label(base)} has no {method.name} to override")
                continue
            names = tuple(argument.arg for argument in method.args.args[1:])
            overloads = signatures_of(getattr(base, method.name))
            if overloads and names not in {overload.names for overload in overloads}:
                shown = ", ".join(overloads[0].names)
                self.problems.append(f"{self.name}:{method.lineno}: {_label(base)}.{method.name} takes ({shown})")
            self.checked.add(f"{_label(base)}.{method.name} overridden")


@dataclass(frozen=True)
class Itself:
    """A module, class or function, not a value of one; `of_class` where it was reached through a class."""

    thing: Any
    label: str = ""
    of_class: bool = False


def _label(thing: Any) -> str:
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", str(thing)))
    return name if inspect.ismodule(thing) or module is None else f"{str(module).split('.')[-1]}.{name}"


def _is_enum(thing: Any) -> bool:
    return hasattr(thing, "__members__")


def _has(thing: Any, name: str) -> bool:
    if hasattr(thing, name):
        return True
    # attributes that a Python class sets when it is made
    maker: Callable[[], Any] | None = thing if inspect.isclass(thing) and thing.__module__.endswith("_tensor") else None
    try:
        return maker is not None and hasattr(maker(), name)
    except TypeError:
        return False


def _class_named(text: str) -> Any:
    """``tensorrt_bindings.tensorrt.Builder`` -> the class, None for anything else."""
    text = _CPP_NAMES.get(text, text)
    name = text.rpartition(".")[2]
    found = getattr(importlib.import_module("tensorrt"), name, None)
    return found if text.startswith("tensorrt") and inspect.isclass(found) else None


def check(path: Path, source: str | None = None) -> tuple[list[str], set[str]]:
    """Problems and checked uses of one file, or of another text in its place."""
    checker = Checker(path.name)
    checker.run(path.read_text(encoding="utf-8") if source is None else source)
    return checker.problems, checker.checked


def _main(paths: Iterator[Path]) -> None:
    problems: list[str] = []
    checked: set[str] = set()
    for path in paths:
        found, uses = check(path)
        problems += found
        checked |= uses
    print(json.dumps({"problems": problems, "checked": sorted(checked)}))


if __name__ == "__main__":
    _main(Path(argument) for argument in sys.argv[1:])
