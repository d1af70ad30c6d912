"""The project as a whole: import, public names, version, README. What the code does is tested elsewhere."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from numpydoc.validate import validate

import skhyper

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_does_not_import_the_heavy_libraries():
    heavy = ["torch", "sklearn", "pandas", "scipy", "numpy", "matplotlib"]
    assert run_python(f"import sys, skhyper; print([name for name in {heavy} if name in sys.modules])") == "[]"


@pytest.mark.parametrize("name", skhyper.__all__)
def test_a_public_name_can_be_imported(name):
    obj = getattr(skhyper, name)
    module = skhyper._PUBLIC[name]
    assert (obj.__name__ if inspect.ismodule(obj) else obj.__module__) == module
    assert name in dir(skhyper)


def test_the_api_page_lists_the_public_names():
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert set(re.findall(r"^   (\w+)$", page, re.M)) == set(skhyper.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'skhyper' has no attribute 'no_such_name'"):
        _ = skhyper.no_such_name


def test_a_type_checker_sees_every_public_name():
    body = ast.parse((ROOT / "skhyper" / "__init__.py").read_text("utf-8")).body
    blocks = [node.body for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block if isinstance(node, ast.ImportFrom)]
    assert {alias.name for node in imports for alias in node.names} == set(skhyper.__all__)


def public_classes_and_functions():
    """The public names, of an object its class; of a public submodule, what its __all__ lists."""
    for name in skhyper.__all__:
        obj = getattr(skhyper, name)
        members = [getattr(obj, member) for member in getattr(obj, "__all__", ())] if inspect.ismodule(obj) else [obj]
        for member in filter(callable, members):
            yield member if inspect.isclass(member) or inspect.isroutine(member) else type(member)


def documented_objects():
    """The public classes and functions, and the public methods that skhyper's own code defines."""
    for obj in public_classes_and_functions():
        yield f"{obj.__module__}.{obj.__qualname__}", False
        for attribute, value in inspect.getmembers(obj) if inspect.isclass(obj) else ():
            if not (callable(value) or isinstance(value, property)):
                continue
            owner = next((c for c in obj.__mro__ if attribute in vars(c)), None)
            if not attribute.startswith("_") and owner is not None and owner.__module__.startswith("skhyper."):
                yield f"{owner.__module__}.{owner.__qualname__}.{attribute}", True


@pytest.mark.parametrize(("path", "is_method"), sorted(set(documented_objects())))
def test_a_docstring_passes_numpydoc_validation(path, is_method):
    skipped = set(PYPROJECT["tool"]["numpydoc_validation"]["checks"]) - {"all"}
    skipped |= {"EX01"} if is_method else set()  # the example of a method stands in its class
    report = validate(path)
    # A property has no parameters, although the validator looks for some.
    skipped |= {"PR02"} if report["type"] == "property" else set()
    assert [error for error in report["errors"] if error[0] not in skipped] == []


def python_blocks():
    for page in PAGES:
        for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S), 1):
            yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{i}")


def imported_from_skhyper(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "skhyper":
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("block", list(python_blocks()))
def test_a_python_block_of_the_readme_and_of_the_docs_runs(block):
    """Each block stands alone, as a reader copies it. One with prompts is a doctest: its output is checked too."""
    prompts = doctest.DocTestParser().get_doctest(block, {}, "block", None, 0)
    source = "".join(example.source for example in prompts.examples) or block
    if missing := set(imported_from_skhyper(source)) - set(skhyper.__all__):
        pytest.skip(f"not in skhyper.__all__: {sorted(missing)}")
    if prompts.examples:
        flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
        assert doctest.DocTestRunner(optionflags=flags).run(prompts).failed == 0
    else:
        exec(compile(block, "block", "exec"), {"__name__": "block"})


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"]
    newest_change = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)[1]
    found = {PYPROJECT["project"]["version"], skhyper.__version__, version("skhyper"), citation, newest_change}
    assert found == {skhyper.__version__}


def test_the_lower_bounds_are_the_versions_that_the_oldest_environment_installs():
    lines = (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    extras = PYPROJECT["project"]["optional-dependencies"]
    requirements = PYPROJECT["project"]["dependencies"] + extras["plot"] + extras["progress"]
    bounds = dict(requirement.split(">=") for requirement in requirements)
    del bounds["torch"]  # its oldest supported version cannot be had as a plain CPU build
    # 1.26 and 1.26.0 are one version.
    assert {name: pins[name].removesuffix(".0") for name in bounds} == {
        name: bound.removesuffix(".0") for name, bound in bounds.items()
    }
