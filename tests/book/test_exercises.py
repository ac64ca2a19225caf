"""The exercises: graded, solved by their solutions and not by what readers get; a quiz for each chapter."""

import ast
import json
import re

import nbformat
import pytest
from nbformat import v4
from test_project import NOTEBOOKS, read

from wdlg.book.exercises import (
    GRADES,
    HEADING,
    exercise_notebook,
    hinting,
    pictures,
    question,
    section,
    stub,
    take_out_solutions,
    write_exercises,
)
from wdlg.errors import InputError

CHAPTERS = [path for path in NOTEBOOKS if any(cell.source.startswith(HEADING) for cell in read(path).cells)]

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def exercises(path):
    """The exercises of a chapter: title, label, and the sources of its parts by name."""
    found = []
    for part, cell in section(read(path)):
        if part == "question" and "{exercise}" in cell.source:
            title, label, _ = question(cell.source)
            found.append({"title": title, "label": label, "given": [], "solution": [], "check": []})
        elif part != "question":
            kind = part if cell.cell_type == "code" else "answer"
            found[-1].setdefault(kind, []).append(cell.source)
    return found


def text_below(path, heading):
    """The text of a chapter below a heading of level two, up to the next."""
    text = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]


def run(sources, names):
    for source in sources:
        exec(compile(source, "<cell>", "exec"), names)


# The chapters


@each_chapter
def test_a_chapter_begins_with_what_it_teaches_and_ends_with_what_it_taught(path):
    box = read(path).cells[0].source
    assert re.search(
        r"\{admonition\} This chapter\n:class: note\n\*\*You will learn\*\* .+\n\n"
        r"\*\*You need\*\* .+\n\n\*\*Change\*\* .+\n```",
        box,
    )
    summary = text_below(path, "## In short").strip()
    *points, last = summary.split("\n")
    assert sum(point.startswith("- ") for point in points) in (3, 4)
    assert re.match(r"\*\*Next:\*\* \[.+\]\(.+\)", last)
    assert "## To try" not in "\n".join(cell.source for cell in read(path).cells)


@each_chapter
def test_exercises_rise_through_all_grades(path):
    titles = [exercise["title"] for exercise in exercises(path)]
    assert all(re.fullmatch(rf"({'|'.join(GRADES)})(: .+)?", title) for title in titles), titles
    grades = [GRADES.index(title.split(":")[0]) for title in titles]
    assert grades == sorted(grades)
    assert set(grades) == set(range(len(GRADES)))


@each_chapter
def test_each_exercise_has_a_hidden_solution_of_its_own(path):
    for exercise in exercises(path):
        answer = "\n".join(exercise.get("answer", []))
        opened = re.findall(r"\{solution(?:-start)?\} (\S+)\n:class: dropdown\n", answer)
        assert opened == [exercise["label"]]
        assert answer.count("{solution-start}") == answer.count("{solution-end}")
        if exercise["title"].startswith(("Measure", "Implement it")):
            assert exercise["solution"]
            assert any("assert " in source for source in exercise["check"])


@each_chapter
def test_the_exercises_are_downloaded_under_the_name_of_the_chapter(path):
    assert re.search(rf"\{{download\}}`[^`]+<\.\./exercises/{path.stem}\.ipynb>`", text_below(path, HEADING))


@each_chapter
def test_each_question_of_the_quiz_has_one_right_answer(path):
    places = []
    questions = re.split(r"^\*\*\d+\. .+\*\*$", text_below(path, "## Quiz"), flags=re.MULTILINE)[1:]
    assert len(questions) >= 3
    for text in questions:
        options = re.findall(
            r"^:::\{dropdown\} ([A-E])\. .+\n\*\*(Right|Not so)\.\*\* .+\n:::$", text, flags=re.MULTILINE
        )
        assert len(options) == text.count(":::{dropdown}") >= 3
        assert [letter for letter, _ in options] == list("ABCDE"[: len(options)])
        [right] = [letter for letter, judged in options if judged == "Right"]
        places.append(right)
    assert len(set(places)) > 1, "the right answer is always at the same place"


@each_chapter
def test_solutions_pass_their_checks_and_what_readers_get_does_not(path):
    """A reader may leave an exercise out: of the others before it, only what is given has run."""
    names = {"__name__": "exercises"}
    for exercise in exercises(path):
        run(exercise["given"], names)
        run([*exercise["solution"], *exercise["check"]], dict(names))
        unsolved = dict(names)
        run([stub(source) for source in exercise["solution"]], unsolved)
        for check in exercise["check"]:
            with pytest.raises((AssertionError, NameError, NotImplementedError)):
                run([check], unsolved)


@each_chapter
def test_no_line_of_a_solution_is_in_the_exercise_notebook(path):
    made = exercise_notebook(read(path))
    shown = {line.strip() for cell in made.cells for line in cell.source.splitlines()}
    found = exercises(path)
    given = {
        line.strip()
        for exercise in found
        for part in ("given", "check")
        for source in exercise[part]
        for line in source.splitlines()
    }
    for number, exercise in enumerate(found, start=1):
        assert f"## {number}. {exercise['title']}" in shown
        for source in exercise["solution"]:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.stmt) and not isinstance(node, ast.Import | ast.ImportFrom):
                    line = ast.get_source_segment(source, node).splitlines()[0].strip()
                    kept = isinstance(node, ast.FunctionDef) or line.startswith('"""')
                    assert kept or line in given or line not in shown, line


def test_exercise_notebooks_are_the_same_each_time_and_have_no_output():
    for path in CHAPTERS:
        made = exercise_notebook(read(path))
        nbformat.validate(made)
        assert made == exercise_notebook(read(path))
        assert all(not cell.get("outputs") for cell in made.cells)


# How they are made


def test_a_stub_keeps_decorators_signature_and_docstring():
    source = '''import math
from functools import (
    cache,
)

LIMIT = 3


@cache
def area(
    radius,
    *,
    exact=True,
):
    """Area of a disc.

    In units of the radius, squared.
    """
    if exact:
        return math.pi * radius**2
    return 3 * radius**2


print(area(1))'''
    assert (
        stub(source)
        == '''import math
from functools import (
    cache,
)


@cache
def area(
    radius,
    *,
    exact=True,
):
    """Area of a disc.

    In units of the radius, squared.
    """
    raise NotImplementedError("your turn")


# Your turn.'''
    )


def test_a_stub_gives_nothing_away_in_comments_or_short_functions():
    assert stub("def f(x):\n    # Twice as much.\n    return 2 * x") == (
        'def f(x):\n    raise NotImplementedError("your turn")'
    )
    assert stub("def f(x): return 2 * x") == 'def f(x):\n    raise NotImplementedError("your turn")'
    assert stub("def f(\n    x,\n): return 2 * x") == (
        'def f(\n    x,\n):\n    raise NotImplementedError("your turn")'
    )
    assert stub("x = 2 * 3") == "# Your turn."
    assert stub("class Twice:\n    factor = 2") == "# Your turn."


def chapter(*cells):
    """A chapter with exercises of (kind, source[, tags]) cells."""
    make = {"text": v4.new_markdown_cell, "code": v4.new_code_cell}
    made = [make[kind](source, metadata={"tags": list(tags)}) for kind, source, *tags in cells]
    before = [v4.new_markdown_cell("# 9 A chapter"), v4.new_code_cell("shown = 1")]
    after = [v4.new_markdown_cell("## Quiz"), v4.new_code_cell("later = 1")]
    heading = v4.new_markdown_cell(HEADING)
    return v4.new_notebook(
        cells=[*before, heading, *made, *after],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )


def asks(text, title="Measure"):
    return f"```{{exercise}} {title}\n:label: ex-test\n\n{text}\n```"


def test_an_exercise_notebook_has_the_question_the_given_code_a_stub_and_the_check():
    made = exercise_notebook(
        chapter(
            ("text", asks("How many?")),
            ("code", "given = 1"),
            ("text", "```{solution-start} ex-test\n:class: dropdown\n```\n\nTwo."),
            ("code", "answer = given + 1"),
            ("code", "say(answer)", "remove-cell"),
            ("code", "assert answer == 2", "check"),
            ("text", "Because."),
            ("text", "```{solution-end}\n```"),
            ("text", asks("Why?", "Explain: briefly")),
            ("text", "```{solution} ex-test\n:class: dropdown\n\nSo.\n```"),
        )
    )
    title, *rest = [cell.source for cell in made.cells]
    assert title.startswith("# Exercises: 9 A chapter")
    assert rest == [
        "## 1. Measure\n\nHow many?",
        "given = 1",
        "# Your turn.",
        "assert answer == 2",
        "## 2. Explain: briefly\n\nWhy?",
        "*Your answer:*",
    ]


@each_chapter
def test_every_check_has_a_hint_that_the_reader_sees_first(path):
    hints = [cell.metadata["hint"] for part, cell in section(read(path)) if part == "check"]
    shown = "\n".join(cell.source for cell in exercise_notebook(read(path)).cells)
    for hint in hints:
        assert hint.endswith((".", "?"))
        assert json.dumps(f"Not yet. {hint}", ensure_ascii=False) in shown


def test_a_failing_check_says_its_hint_and_a_passing_one_nothing():
    source = hinting("assert answer == 2\n\nprint(answer)", "Count again.")
    run([source], {"answer": 2})
    for names in ({"answer": 3}, {}):
        with pytest.raises(AssertionError, match=r"^Not yet\. Count again\.$"):
            run([source], names)


@each_chapter
def test_a_question_about_a_figure_names_it_and_the_notebook_shows_it(path):
    chapter = read(path)
    known = {cell.metadata["mystnb"]["figure"]["name"] for cell in chapter.cells if "mystnb" in cell.metadata}
    for part, cell in section(chapter):
        if part == "question" and re.search(r"\{exercise\} Read the figure\n", cell.source):
            named = cell.metadata.get("figures", [])
            assert set(named) <= known
            assert named or "the table" in cell.source, cell.source[:80]
            made = exercise_notebook(chapter, dict.fromkeys(named, "aGk="))
            [asked] = [one for one in made.cells if one.id == cell.id]
            for name in named:
                assert f"(attachment:{name}.png)" in asked.source
                assert asked.attachments[f"{name}.png"] == {"image/png": "aGk="}
            nbformat.validate(made)


def test_the_pictures_of_a_chapter_are_those_of_its_figures():
    cell = v4.new_code_cell("draw()", metadata={"mystnb": {"figure": {"name": "fig-a"}}})
    cell.outputs = [v4.new_output("display_data", data={"image/png": "aGk="})]
    assert pictures(v4.new_notebook(cells=[cell, v4.new_code_cell("1")])) == {"fig-a": "aGk="}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pages_without_solutions_keep_every_question_and_their_file_has_every_solution(path, tmp_path):
    pages, folder = tmp_path / "pages", tmp_path / "new" / "solutions"
    pages.mkdir()
    nbformat.write(read(path), pages / path.name)
    take_out_solutions(pages, folder)
    before, after = list(section(read(path))), read(pages / path.name)
    assert (folder / path.name).exists() == bool(before)
    left = [(part, cell.source) for part, cell in section(after)]
    kept = ("question", "given")
    assert left == [(part, cell.source) for part, cell in before if part in kept]
    outside = {cell.source for cell in read(path).cells} - {cell.source for _, cell in before}
    assert outside <= {cell.source for cell in after.cells}
    if before:
        written = [cell.source for cell in read(folder / path.name).cells]
        assert written[1:] == [cell.source for _, cell in before]
        assert "solution}" not in "".join(cell.source for cell in after.cells)


def test_the_list_for_teachers_has_each_exercise_notebook_on_a_line_of_its_own(tmp_path):
    folder = tmp_path / "exercises"
    write_exercises(NOTEBOOKS[0].parent, folder)
    lines = (folder / "list.md").read_text().splitlines()
    linked = [re.fullmatch(r"- \{download\}`[^`<>]+ <\.\./exercises/(.+)>`", line)[1] for line in lines]
    assert linked == sorted(path.name for path in folder.glob("*.ipynb"))
    assert len(linked) > 5


def test_a_chapter_without_exercises_makes_no_notebook(tmp_path):
    plain = v4.new_notebook(cells=[v4.new_markdown_cell("# 9 A chapter")])
    assert exercise_notebook(plain) is None
    nbformat.write(plain, tmp_path / "plain.ipynb")
    nbformat.write(chapter(("text", asks("How many?"))), tmp_path / "asking.ipynb")
    write_exercises(tmp_path, tmp_path / "made")
    assert [path.name for path in (tmp_path / "made").glob("*.ipynb")] == ["asking.ipynb"]


def test_a_question_is_in_words_that_a_plain_notebook_shows():
    text = (
        "A {term}`plan`, {term}`plans <plan>`, [a page](02_x), [the web](https://example.org), $x$, `[f](x)`."
    )
    assert question(asks(text))[2].startswith("A plan, plans, a page, [the web](https://example.org), $x$, `")


@pytest.mark.parametrize(
    "text",
    [
        "By {eq}`eq-matching`.",
        "In {numref}`fig-one`.",
        "There were {glue:text}`runs` runs.",
        "See {prf:ref}`thm-label`.",
        "As {cite:t}`he2023wdlg` say.",
        ":::{hint}\nThink.\n:::",
    ],
)
def test_a_question_with_a_role_of_the_book_is_refused(text):
    with pytest.raises(InputError, match="the exercise ex-test uses .*, but must say it in words"):
        exercise_notebook(chapter(("text", asks(text))))


def test_an_exercise_without_a_label_is_refused():
    with pytest.raises(InputError, match="an exercise starts with .*, but must be one fenced directive"):
        exercise_notebook(chapter(("text", "```{exercise} Measure\n\nHow many?\n```")))
