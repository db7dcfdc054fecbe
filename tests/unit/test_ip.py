"""Addresses from text against the oracle, and against Go's net.ParseIP itself where Go is at hand."""

import ipaddress
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import shown
from hypothesis import example, given
from hypothesis import strategies as st
from unit import oracle_ip

MAPPED = oracle_ip.MAPPED


def address(text: str) -> bytes:
    """The sixteen bytes, by the standard library."""
    made = ipaddress.ip_address(text)
    return made.packed if made.version == 6 else MAPPED + made.packed


# Pieces that addresses are made of, and such as nearly are.
PIECES = [
    *("0", "1", "9", "10", "99", "100", "249", "255", "256", "300", "00", "01", "001", "1234", "12345", "g"),
    *("a", "F", "fF", "ffff", "FFFF", "0000", "00000", "beef", ":", "::", ":::", ".", "..", "%", "%eth0", " "),
    *("[", "]", "-", "+", "/", "/24", ":80", "0x1", "\0", "\u0661", "\u00e9", "1.2.3.4", "10.0.0.1", "::ffff:"),
]
GROUPS = st.integers(0, 0xFFFF).flatmap(
    lambda value: st.sampled_from([f"{value:x}", f"{value:X}", f"{value:04x}", f"{value:05x}"])
)
NUMBERS = st.one_of(st.integers(0, 255), st.integers(0, 300)).map(str)
FOURS = st.lists(NUMBERS, min_size=3, max_size=5).map(".".join)


@st.composite
def sixes(draw: st.DrawFn) -> str:
    """Groups, perhaps with a gap, perhaps with IPv4 somewhere."""
    groups = draw(st.lists(GROUPS, max_size=9))
    if draw(st.booleans()):
        groups.insert(draw(st.integers(0, len(groups))) if draw(st.booleans()) else len(groups), draw(FOURS))
    text = ":".join(groups)
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        colons = [at for at, letter in enumerate(text) if letter == ":"] or [0]
        at = draw(st.one_of(st.sampled_from([0, len(text)]), st.sampled_from(colons)))
        text = text[:at] + draw(st.sampled_from([":", "::"])) + text[at:]
    return text


TEXTS = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda made: made.exploded),
    FOURS,
    sixes(),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(alphabet="0123456789abcdefABCDEF:.%", max_size=48),
)
BYTES = st.one_of(TEXTS.map(str.encode), st.binary(max_size=50))

VALID = {
    "10.1.2.3": "::ffff:10.1.2.3",
    "0.0.0.0": "::ffff:0.0.0.0",
    "255.255.255.255": "::ffff:255.255.255.255",
    "::": "::",
    "::1": "::1",
    "1::": "1::",
    "1:2:3:4:5:6:7::": "1:2:3:4:5:6:7:0",
    "::2:3:4:5:6:7:8": "0:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7:8": "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:1.2.3.4": "1:2:3:4:5:6:102:304",
    "::FFFF:10.1.2.3": "::ffff:10.1.2.3",
    "::ffff:a01:203": "::ffff:10.1.2.3",
    "::1.2.3.4": "::102:304",
    "1::1.2.3.4": "1::102:304",
    "FE80::AbCd": "fe80::abcd",
    "0001:0002::": "1:2::",
}
INVALID = [
    *("", ".", ":", "1", "abcd", "1.2.3", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.4.", "1.2.3.4.5", "01.2.3.4"),
    *("1.2.3.04", "00.0.0.0", "256.1.1.1", "1.2.3.256", "1.2.3.1000", "1.2.3.4 ", " 1.2.3.4", "1.2.3.4:80", "1,2,3,4"),
    *("::1%lo", "::%", "%", "fe80::1%eth0", "1.2.3.4%eth0", "[::1]", "::1]", "::1/128", "::g", ":::", "1:::2", "::1::"),
    *("1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8", "1:", ":1"),
    *("12345::", "::12345", "1:2:3:4:5:6:7:", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:1.2.3.4", "1.2.3.4::", "::1.2.3"),
    *(
        "::1.2.3.4:5",
        "::01.2.3.4",
        "::a.1.2.3",
        "1:2:3:4:5:6::1.2.3.4",
        "::1.2.3.4.5",
        "::ffff:1.2.3.256",
        "::1.2.3.4%e",
    ),
    *("1.2.3.4\0", "\u0661.2.3.4", "0x1.2.3.4", "+1.2.3.4"),
]


@pytest.mark.parametrize(("text", "same"), VALID.items(), ids=VALID)
def test_every_spelling_gives_the_same_bytes(text: str, same: str) -> None:
    assert shown.ip_parse(text.encode()) == ipaddress.IPv6Address(same).packed == oracle_ip.parse(text.encode())


@pytest.mark.parametrize("text", INVALID)
def test_what_is_no_address(text: str) -> None:
    assert shown.ip_parse(text.encode()) is None
    assert oracle_ip.parse(text.encode()) is None


@given(BYTES)
def test_agrees_with_the_oracle(text: bytes) -> None:
    assert shown.ip_parse(text) == oracle_ip.parse(text)


@given(st.ip_addresses())
def test_every_address_is_read(made: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert shown.ip_parse(str(made).encode()) == shown.ip_parse(made.exploded.upper().encode()) == address(str(made))


GO = """package main

import ("bufio"; "encoding/hex"; "fmt"; "net"; "os")

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		text, _ := hex.DecodeString(in.Text())
		fmt.Fprintf(out, "%x\\n", []byte(net.ParseIP(string(text))))
	}
}
"""


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that reads texts in hex, a line each, and prints what net.ParseIP makes of them."""
    if not shutil.which("go"):
        pytest.skip("Go is not installed")
    folder = tmp_path_factory.mktemp("go")
    source = folder / "parse.go"
    source.write_text(GO)
    environment = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off", "GOFLAGS": ""}
    subprocess.run(["go", "build", "-o", "parse", source.name], cwd=folder, env=environment, check=True)
    return folder / "parse"


def asked(go: Path, texts: list[bytes]) -> list[bytes | None]:
    lines = "".join(f"{text.hex()}\n" for text in texts)
    done = subprocess.run([go], input=lines, capture_output=True, text=True, check=True)
    return [bytes.fromhex(line) or None for line in done.stdout.splitlines()]


@example(texts=[text.encode() for text in [*VALID, *INVALID]])
@given(texts=st.lists(BYTES, min_size=100, max_size=400))
def test_agrees_with_go(go: Path, texts: list[bytes]) -> None:
    assert [shown.ip_parse(text) for text in texts] == asked(go, texts)
