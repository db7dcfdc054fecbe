"""relay.selector: label selectors and namespaces as Kubernetes takes them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.selector import parse_namespace, parse_selector

SELECTOR = "a label selector, as in app=kubearmor,tier!=test,zone in (a, b),!old"

edge = "abcXYZ019"
labels = st.from_regex(rf"\A[{edge}]([{edge}_.-]{{0,61}}[{edge}])?\Z")
domains = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{1,8}){0,3}\Z")
keys = labels | st.builds("{}/{}".format, domains, labels)
values = labels | st.just("")
space = st.sampled_from(["", " ", "\t", "  "])


@st.composite
def requirements(draw: st.DrawFn) -> str:
    """One requirement, with space wherever it may stand."""

    def gap() -> str:
        return draw(space)

    key = draw(keys)
    kind = draw(st.sampled_from(["=", "==", "!=", "in", "notin", "!", ""]))
    if kind == "":
        return f"{gap()}{key}{gap()}"
    if kind == "!":
        return f"{gap()}!{gap()}{key}{gap()}"
    if kind in ("in", "notin"):
        # An empty value needs a comma beside it: "()" holds no value.
        listed = draw(st.lists(values, min_size=1, max_size=3).filter(lambda listed: listed != [""]))
        inside = ",".join(f"{gap()}{value}{gap()}" for value in listed)
        return f"{gap()}{key} {gap()}{kind}{gap()}({inside}){gap()}"
    return f"{gap()}{key}{gap()}{kind}{gap()}{draw(values)}{gap()}"


@given(st.lists(requirements(), min_size=1, max_size=4))
@example(["kubearmor-app=kubearmor"])
@example(["a"])
@example(["a in (x,)", "b notin(,y)", "in in (in)", "a=in"])
def test_every_selector_of_the_grammar_is_taken_as_it_is(parts: list[str]) -> None:
    text = ",".join(parts)
    assert parse_selector(text) == text.strip(" \t")


LONG = ".".join(["a" * 63] * 4)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "a label is missing before the end"),
        ("  ", "a label is missing before the end"),
        ("a=b,", "a label is missing before the end"),
        (",a", "a label is missing before ','"),
        ("=b", "a label is missing before '='"),
        ("!", "a label is missing before the end"),
        ("!!a", "a label is missing before '!'"),
        ("!a=b", "a comma is missing before '='"),
        ("a b", "a comma is missing before 'b'"),
        ("a=b c", "a comma is missing before 'c'"),
        ("a===b", "a comma is missing before '='"),
        ("a=b=c", "a comma is missing before '='"),
        ("a in", "an opening bracket is missing before the end"),
        ("a in x", "an opening bracket is missing before 'x'"),
        ("a in ()", "a value is missing before ')'"),
        ("a in (x", "a closing bracket is missing before the end"),
        ("a in (x y)", "a closing bracket is missing before 'y'"),
        ("a in (x))", "a comma is missing before ')'"),
        ("a-=b", "'a-' is no name of a label"),
        ("a=-b", "'-b' is no value of a label"),
        ("a=b/c", "'b/c' is no value of a label"),
        ("a>1", "'a>1' is no name of a label"),
        ("A.b/c=d", "'A.b' is no DNS name that could stand before a label's slash"),
        ("/c=d", "'' is no DNS name that could stand before a label's slash"),
        ("a/b/c=d", "'a/b' is no DNS name that could stand before a label's slash"),
        ("a/=d", "'' is no name of a label"),
        ("ä=b", "'ä' is no name of a label"),
        ("a=b\n", "'b\\n' is no value of a label"),
        ("a" * 64, f"{'a' * 64!r} is no name of a label"),
        ("a=" + "b" * 64, f"{'b' * 64!r} is no value of a label"),
        (LONG + "/b", f"{LONG!r} is no DNS name that could stand before a label's slash"),
    ],
)  # fmt: skip
def test_a_wrong_selector_is_refused_with_what_is_wrong(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=r"^a label selector") as caught:
        parse_selector(text)
    assert str(caught.value) == f"{SELECTOR}; {wrong}"


@given(st.text(alphabet="ab=!(),. \t/-") | st.text())
def test_any_text_is_taken_or_refused(text: str) -> None:
    error = ""
    try:
        assert parse_selector(text) == text.strip(" \t")
    except ValueError as refused:
        error = str(refused)
    assert error == "" or error.startswith(SELECTOR)


@pytest.mark.parametrize("text", ["", "a", "0", "kube-system", "a" * 63])
def test_a_namespace(text: str) -> None:
    assert parse_namespace(text) == text


@pytest.mark.parametrize("text", ["-a", "a-", "A", "a.b", "a_b", "a" * 64, "a\n", " ", "a,b"])
def test_a_wrong_namespace_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^nothing, or a namespace: up to 63 of a-z, 0-9 and -"):
        parse_namespace(text)
