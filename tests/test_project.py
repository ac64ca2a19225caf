"""The files around the code agree with one another."""

import ast
import re
import tomllib
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from wdlg import data
from wdlg.book.build import PROFILES, read_profile
from wdlg.book.checkout import find_checkout
from wdlg.book.execution import LAST

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def locked(name="requirements.lock"):
    """Version by name of a lock."""
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in pins), "only NAME==VERSION lines"
    pairs = [line.split("==") for line in pins]
    versions = {canonicalize_name(name): Version(version) for name, version in pairs}
    assert len(versions) == len(pins), "a name stands twice"
    return versions


def requirements():
    """Every requirement of pyproject.toml, with those of its optional parts but the one with its own lock."""
    groups = PROJECT["optional-dependencies"]
    optional = [line for name, group in groups.items() if name != "federated" for line in group]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *optional]]


def read(path):
    return nbformat.read(path, as_version=4)


def text_of(path):
    """The prose of a page or of a notebook's text cells."""
    if path.suffix == ".md":
        return path.read_text()
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


# Dependencies


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_each_dependency_is_locked_to_a_version_within_its_bounds(requirement):
    version = locked().get(canonicalize_name(requirement.name))
    assert version is not None, f"requirements.lock does not have {requirement.name}"
    assert requirement.specifier.contains(version)


def test_the_lock_is_closed_and_holds_nothing_else():
    """All that the dependencies need in turn is locked, and nothing that no dependency needs."""
    versions = locked()
    needed, waiting = set(), requirements()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extras := frozenset(requirement.extras)) in needed or name in ("setuptools", "pip"):
            continue
        needed.add((name, extras))
        assert name in versions, f"requirements.lock does not have {name}"
        for line in metadata.requires(name) or []:
            further = Requirement(line)
            wanted = further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            )
            # The GPU parts of torch are for pip to choose: they differ from machine to machine.
            if wanted and not further.name.startswith(("nvidia-", "cuda-", "triton")):
                waiting.append(further)
    assert set(versions) == {name for name, _ in needed}


def test_what_flower_shares_with_the_book_has_the_same_version_but_for_two():
    """Flower wants an older packaging, and a newer certifi."""
    ours, theirs = locked(), locked("requirements-federated.lock")
    different = {name for name in set(ours) & set(theirs) if ours[name] != theirs[name]}
    assert different == {"packaging", "certifi"}
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["federated"]]
    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(theirs[canonicalize_name(requirement.name)])
    assert "flwr" not in ours


def test_this_environment_has_the_locked_versions():
    different = {
        name: (metadata.version(name), str(version))
        for name, version in locked().items()
        if Version(metadata.version(name)).public != version.public
    }
    assert not different, "run `make test`, which installs what requirements.lock says"


def test_every_locked_package_runs_on_the_oldest_python_that_the_project_supports():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    wants = {name: metadata.metadata(name).get("Requires-Python") or "" for name in locked()}
    assert {name: want for name, want in wants.items() if not SpecifierSet(want).contains(oldest)} == {}


def test_the_conda_environment_installs_the_lock_on_a_python_that_the_project_supports():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    [by_pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    [python] = [entry.split("=")[1] for entry in plain if entry.startswith("python=")]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)
    assert "pip" in plain
    assert by_pip == ["-r requirements.lock", "-e ."]


def test_binder_installs_the_same_and_not_the_container_file():
    """Where there is a folder .binder, repo2docker looks nowhere else; paths are seen from that folder."""
    plain, binder = (
        yaml.safe_load((ROOT / name).read_text()) for name in ("environment.yml", ".binder/environment.yml")
    )
    pip = binder["dependencies"][-1]["pip"]
    binder["dependencies"][-1]["pip"] = [line.replace("../", "").replace("..", ".") for line in pip]
    assert binder == plain
    assert all((ROOT / ".binder" / line.split()[1]).exists() for line in pip)


def test_the_container_file_has_a_python_the_lock_and_a_user_of_its_own():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    [image] = [rest for step, rest in steps if step == "FROM"]
    python = re.fullmatch(r"python:(\d\.\d+)-slim", image)[1]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)
    assert [rest for step, rest in steps if step == "USER"] == ["1000"]
    copied = [rest.split()[-2] for step, rest in steps if step == "COPY"]
    assert copied == ["requirements.lock", "."]
    runs = " ".join(rest for step, rest in steps if step == "RUN")
    assert "-r requirements.lock" in runs
    # As the Makefile does, which else would install everything again.
    stamp = re.search(r"^READY +:= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert f"touch {stamp.replace('$(VENV)', '.venv')}" in runs


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] == metadata.version("wdlg")


def test_the_licences_are_there_and_named():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "creativecommons.org/licenses/by/4.0/legalcode" in (ROOT / "LICENSE-book").read_text()


def test_one_address_of_the_repository_is_used_throughout():
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == address
    for path in [*PAGES, ROOT / "README.md"]:
        for named in re.findall(r"https://github\.com/[\w-]+/wdlg\b", path.read_text()):
            assert named == address, path.name


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda p: p.stem)
def test_workflows_pin_the_major_version_of_each_action(path):
    workflow = yaml.safe_load(path.read_text())
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action) for action in used)


# Notebooks and pages


def toc_files():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def test_the_table_of_contents_lists_every_notebook_and_page_once_and_in_order():
    files = toc_files()
    assert [file for file in files if file.startswith("notebooks/")] == [
        f"notebooks/{path.stem}" for path in NOTEBOOKS
    ]
    assert sorted(file for file in files if file.startswith("book/")) == [
        f"book/{path.stem}" for path in PAGES
    ]
    assert len(files) == len(NOTEBOOKS) + len(PAGES)


def test_the_notebooks_that_run_last_exist():
    assert set(LAST) <= {path.stem for path in NOTEBOOKS}


@each_notebook
def test_a_notebook_is_stripped(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@each_notebook
def test_a_notebook_has_one_parameters_cell(path):
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in read(path).cells) == 1


@each_notebook
def test_no_code_cell_is_longer_than_thirty_lines(path):
    for number, cell in enumerate(read(path).cells, start=1):
        assert cell.cell_type != "code" or len(cell.source.splitlines()) <= 30, f"cell {number}"


@each_notebook
def test_every_cell_that_ends_in_a_figure_has_a_caption_a_name_and_a_sentence_for_those_who_cannot_see_it(
    path,
):
    for number, cell in enumerate(read(path).cells, start=1):
        if cell.cell_type != "code" or "mystnb" not in cell.metadata:
            last = cell.source.rstrip().splitlines()[-1] if cell.source.strip() else ""
            assert not re.match(r"figures\.\w+\(", last), f"cell {number} shows a figure without a caption"
            continue
        figure, image = cell.metadata["mystnb"]["figure"], cell.metadata["mystnb"]["image"]
        assert figure["caption"].endswith(".")
        assert figure["name"].startswith("fig-")
        assert len(image["alt"].split()) >= 6, f"the alternative text of cell {number} is no sentence"


def test_names_of_figures_and_equations_are_unique():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in read(path).cells
        if "mystnb" in cell.metadata
    ]
    names += [label for path in [*NOTEBOOKS, *PAGES] for label in re.findall(r":label: (\S+)", text_of(path))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_names_only_notebooks_and_parameters_that_exist(profile):
    """read_profile refuses any other."""
    assert isinstance(read_profile(find_checkout(ROOT), profile), dict)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_names_only_data_sets_of_the_catalogue(profile):
    for parameters in read_profile(find_checkout(ROOT), profile).values():
        named = {parameters.get("dataset"), *parameters.get("datasets", []), *parameters.get("figure_4", [])}
        assert named - {None} <= set(data.CATALOGUE)


@each_notebook
def test_a_number_in_the_text_of_a_notebook_is_glued_by_that_notebook(path):
    code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    alts = [cell.metadata["mystnb"]["image"]["alt"] for cell in read(path).cells if "mystnb" in cell.metadata]
    for key in re.findall(r"\{glue:text\}`([^`:]+)", "\n".join([text_of(path), *alts])):
        assert re.search(rf"\b{key}=", code), f"{key} is quoted, but no pages.say({key}=...) is there"


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: path.stem)
def test_a_command_in_a_formula_has_one_backslash(path):
    """With two it is a new line and a word: `langle` in the middle of a formula."""
    assert re.findall(r"\\\\[a-z]{2,}", text_of(path)) == []


# Rooms

PACKAGE = ROOT / "wdlg"


def rows_of_rooms():
    """Room and the rooms that it knows, in the order of the table in the API page."""
    text = (ROOT / "book" / "api.md").read_text()
    table = re.findall(r"^\| `(\w+)` \| [^|]+ \|([^|]*)\|$", text, flags=re.MULTILINE)
    return {room: re.findall(r"`(\w+)`", known) for room, known in table}


def below():
    """What lies below the rooms, in the order of the API page."""
    [line] = re.findall(
        r"^Below them lies what any room may use: (.+?)\. ",
        (ROOT / "book" / "api.md").read_text(),
        flags=re.MULTILINE,
    )
    return re.findall(r"`(\w+)`", line)


def imported(room):
    """The other parts of the package that a part imports anywhere, also in functions and for types."""
    files = sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / f"{room}.py"]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{file.name} has a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("wdlg.")}
    return found - {room, "__version__"}


def test_the_library_page_lists_every_room():
    parts = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()
    }
    assert sorted([*rows_of_rooms(), *below()]) == sorted(parts - {"__init__"})


@pytest.mark.parametrize("room", rows_of_rooms())
def test_a_room_knows_what_the_library_page_says_and_no_later_room(room):
    rooms = list(rows_of_rooms())
    knows = [one for one in rooms if one in imported(room)]
    assert knows == rows_of_rooms()[room], f"{room} knows {', '.join(f'`{one}`' for one in knows)}"
    later = set(knows) & set(rooms[rooms.index(room) :])
    assert not later, f"{room} imports {', '.join(later)}, which comes later"


@pytest.mark.parametrize("part", below())
def test_what_lies_below_the_rooms_knows_none_of_them(part):
    assert imported(part) <= set(below()[: below().index(part)])


def test_loops_are_compiled_in_modules_that_say_so():
    for path in PACKAGE.rglob("*.py"):
        compiles = re.search(r"^@compile_(loops|part)$", path.read_text(), flags=re.MULTILINE)
        assert not compiles or path.name.startswith("compiled_") or path.parent.name == "compiled", path


# References


def bibliography():
    return re.findall(
        r"^@\w+\{([^,\s]+),", (ROOT / "book" / "references.bib").read_text(), flags=re.MULTILINE
    )


def cited():
    roles = [
        keys for path in [*NOTEBOOKS, *PAGES] for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", text_of(path))
    ]
    return {key.strip() for keys in roles for key in keys.split(",")}


def test_every_key_that_is_cited_is_in_the_bibliography():
    assert cited() <= set(bibliography())
    assert {entry.citation for entry in data.CATALOGUE.values()} <= set(bibliography())


def test_no_key_stands_twice_in_the_bibliography():
    assert len(bibliography()) == len(set(bibliography()))


# The repository speaks of the project alone


def test_no_file_names_a_folder_of_the_machine_it_was_written_on():
    kinds = {".py", ".md", ".yml", ".yaml", ".toml", ".cff", ".lock", ".ipynb", ""}
    folders = ("wdlg", "tests", "notebooks", "book", ".github", "benchmarks")
    places = [*ROOT.glob("*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    generated = {ROOT / "book" / "executed", ROOT / "book" / "_build"}
    machine = re.compile(rf"(?<![\w.])({re.escape(str(ROOT))}|{re.escape(str(Path.home()))})/")
    for path in places:
        if path.is_file() and path.suffix in kinds and not generated & set(path.parents):
            found = machine.search(path.read_text(errors="ignore"))
            assert not found, f"{path.relative_to(ROOT)} names {found.group()}"


def test_a_table_in_a_docstring_has_a_caption():
    """Of what reStructuredText reads as a table: rules of several columns, under no ``.. table::``."""
    for path in (ROOT / "wdlg").rglob("*.py"):
        assert not re.search(r"^={3,} +={3,}", path.read_text(), re.MULTILINE), path
