"""The examples in the docstrings of public names print what they say."""

import doctest
import pydoc

import pytest

import shadowsim

SEARCHES = {"capacity", "plan", "recommend"}  # many simulations each


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SEARCHES else []) for n in shadowsim.__all__]
)
def test_the_examples_of(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # they write files
    thing = getattr(shadowsim, name)
    cases = [case for case in doctest.DocTestFinder().find(thing, name, globs={}) if case.examples]
    assert cases, f"{name} has no example"
    for case in cases:
        assert not any(example.options.get(doctest.SKIP) for example in case.examples)
        printed: list[str] = []
        outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(case, out=printed.append)
        assert outcome.attempted > 0
        assert not outcome.failed, "".join(printed)


def test_help_opens_with_what_the_package_is_for():
    opening = "Simulate a SageMaker shadow test before you pay for it."
    assert f"NAME\n    shadowsim - {opening}" in pydoc.plain(pydoc.render_doc(shadowsim))
