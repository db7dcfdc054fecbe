"""Build of the relay: generated sources first, then the extension modules.

Metadata, dependencies and tool settings are in pyproject.toml; here is only what has to be
computed on the machine that builds. It is steered by the environment:

RELAY_DEBUG=1           assertions and counters on, little optimisation
RELAY_SANITIZE=LIST     address,undefined or thread: instrumented by the compiler
RELAY_WERROR=1          C compiler warnings are errors (as in CI)
RELAY_SHOWN=1           also build the test-only module `shown` (tests/native/shown.pyx);
                        RELAY_SHOWN=scan,leaf builds it from those parts only
RELAY_FUZZ=1            build nothing but the fuzz targets (tests/fuzz), by clang
RELAY_BUILD_DIR=PATH    where everything built goes; default build/<variant>

Each variant (normal, debug, address-undefined, thread, fuzz) has a folder of its own under build/:
`lib` is an importable copy of the package, `tests` holds the test-only modules. Only the normal variant can
be built in place; the others are used by putting their folders first on PYTHONPATH.
"""

import fcntl
import json
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
# As pkg-config names them.
LIBRARIES = ("libnghttp2 >= 1.52", "openssl >= 3.0")

INSTALL_HINT = """{problem}
The relay is built on the system's {libraries}. Install them with
  Debian, Ubuntu:  apt-get install gcc pkg-config libnghttp2-dev libssl-dev
  Fedora:          dnf install gcc pkgconf-pkg-config libnghttp2-devel openssl-devel
  Alpine:          apk add gcc musl-dev linux-headers pkgconf nghttp2-dev openssl-dev
"""

# What the library or the C library may or may not offer. Distributions patch features into old
# versions, so each is asked for by compiling and linking a use of it; the answer is a macro,
# RELAY_HAVE_<name>=0 or 1.
PROBES = {
    # Rapid-reset protection: a token bucket for RST_STREAM from the peer.
    "STREAM_RESET_RATE_LIMIT": (
        "#include <nghttp2/nghttp2.h>",
        "nghttp2_option *o = 0; nghttp2_option_set_stream_reset_rate_limit(o, 1000, 33);",
    ),
    # CONTINUATION flood protection.
    "MAX_CONTINUATIONS": (
        "#include <nghttp2/nghttp2.h>",
        "nghttp2_option *o = 0; nghttp2_option_set_max_continuations(o, 8);",
    ),
}

# Built beside the package, never part of it.
TEST_MODULES = {"shown": "tests/native/shown.pyx", "fuzz_targets": "tests/fuzz/fuzz_targets.pyx"}

SANITIZERS = {"address", "undefined", "thread"}


def fail(problem: str) -> None:
    """End the build with one message that says what to install."""
    sys.exit("error: " + INSTALL_HINT.format(problem=problem, libraries=" and ".join(LIBRARIES)).rstrip())


def sanitizers() -> list[str]:
    names = sorted(filter(None, os.environ.get("RELAY_SANITIZE", "").split(",")))
    unknown = set(names) - SANITIZERS
    if unknown or ("thread" in names and len(names) > 1):
        sys.exit(
            f"error: RELAY_SANITIZE={','.join(names)}: accepted are address, undefined, "
            "both with a comma between, or thread alone"
        )
    return names


DEBUG = os.environ.get("RELAY_DEBUG", "") not in ("", "0")
SANITIZE = sanitizers()
FUZZ = os.environ.get("RELAY_FUZZ", "") not in ("", "0")
if FUZZ:
    os.environ.setdefault("CC", "clang")
    SANITIZE = ["address", "undefined"]
VARIANT = "fuzz" if FUZZ else "-".join(SANITIZE) or ("debug" if DEBUG else "normal")
BUILD = Path(os.environ.get("RELAY_BUILD_DIR") or Path("build") / VARIANT)
SHOWN = os.environ.get("RELAY_SHOWN", "")


def pkg_config(*arguments: str) -> list[str]:
    found: list[str] = []
    for library in LIBRARIES:
        command = [os.environ.get("PKG_CONFIG", "pkg-config"), *arguments, library]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            fail(f"{command[0]} was not found.")
        except subprocess.CalledProcessError as error:
            first_line = (error.stderr.strip() or "no reason given").splitlines()[0]
            fail(f"{command[0]} does not find {library}: {first_line}")
        found += [each for each in shlex.split(done.stdout) if each not in found]
    return found


def compiles(prelude: str, statement: str, flags: list[str], libraries: list[str]) -> bool:
    """Whether a program that makes this one call compiles and links."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        # argc keeps the call from being run or removed; an undeclared function is an error.
        source.write_text(
            f"#define _GNU_SOURCE\n{prelude}\nint main(int argc, char **argv)\n"
            f"{{ (void)argv; if (argc > 99) {{ {statement} }} return 0; }}\n"
        )
        command = [
            *compiler,
            "-Werror=implicit-function-declaration",
            *flags,
            str(source),
            "-o",
            str(Path(folder) / "probe"),
            *libraries,
        ]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            fail(f"The C compiler {compiler[0]} was not found.")
    return False


def probe(flags: list[str], libraries: list[str]) -> dict[str, int]:
    if not compiles("#include <nghttp2/nghttp2.h>", "nghttp2_option_new(0);", flags, libraries):
        fail("A program that uses libnghttp2 does not compile and link.")
    if not compiles("#include <openssl/ssl.h>", "SSL_get0_peer_certificate(0);", flags, libraries):
        fail("A program that uses OpenSSL 3 does not compile and link.")
    return {f"RELAY_HAVE_{name}": int(compiles(*program, flags, libraries)) for name, program in PROBES.items()}


def write_if_changed(path: Path, text: str) -> None:
    """Keep the time stamp, and so what was built from it, while the contents stay the same."""
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def clang_library(name: str) -> str:
    """Path of a library of clang's own runtime, whose name carries the architecture in one of two ways."""
    compiler = shlex.split(os.environ["CC"])
    for file in (f"{name}-{platform.machine()}.a", f"{name}.a"):
        command = [*compiler, f"-print-file-name={file}"]
        path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        if Path(path).is_absolute():
            return path
    sys.exit(f"error: {compiler[0]} has no {name} (Debian: libclang-rt-dev)")


def generate() -> None:
    """Make the sources that are made from other sources: message classes and their schema."""
    # The scripts import each other, which Python's safe path would keep them from.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    for script in ("make_protos.py", "make_schema.py", "make_json_table.py"):
        if (HERE / "scripts" / script).exists():
            subprocess.run([sys.executable, str(HERE / "scripts" / script)], check=True, cwd=HERE, env=env)


def write_parts(module: str, wanted: set[str] | None = None) -> list[str]:
    """Write the list of parts that a test-only module includes; returns their paths.

    The parts of tests/<folder>/<module>.pyx are the files <prefix>_<part>.pxi beside it.
    """
    folder = HERE / Path(TEST_MODULES[module]).parent
    prefix = module.partition("_")[0]
    names = sorted(path.stem.removeprefix(f"{prefix}_") for path in folder.glob(f"{prefix}_*.pxi"))
    names = [name for name in names if wanted is None or name in wanted]
    lines = ["# Made by setup.py.", *(f'include "{prefix}_{name}.pxi"' for name in names)]
    if module == "fuzz_targets":
        lines += ["", "", "cdef FuzzTarget target_of(str name) except NULL:"]
        lines += [f'    if name == "{name}":\n        return fuzz_{name}' for name in names]
        lines += ["    raise ValueError(name)", "", "", f"TARGETS = {names!r}"]
    write_if_changed(folder / f"_{prefix}_parts.pxi", "\n".join(lines) + "\n")
    return [str((folder / f"{prefix}_{name}.pxi").relative_to(HERE)) for name in names]


def compile_flags() -> list[str]:
    flags = ["-fvisibility=hidden", "-Wall", "-Wextra"]
    # Cython's own habits: helpers that a module does not use, and slots with a fixed signature.
    flags += ["-Wno-unused-function", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    if VARIANT != "normal" and not FUZZ:
        # With little optimisation gcc no longer sees that a variable was set, or how long a text can be.
        flags += ["-Wno-maybe-uninitialized", "-Wno-format-truncation"]
    elif os.environ.get("RELAY_WERROR", "") not in ("", "0"):
        flags.append("-Werror")
    if SANITIZE:
        names = ",".join([*SANITIZE, "fuzzer-no-link"] if FUZZ else SANITIZE)
        flags += [f"-fsanitize={names}", "-O1", "-g", "-fno-omit-frame-pointer"]
        if "undefined" in SANITIZE:
            flags.append("-fno-sanitize-recover=undefined")
    elif DEBUG:
        flags += ["-O1", "-g"]
    else:
        # -g1: line numbers for perf and gdb cost nothing at run time.
        # -fno-plt: calls into libnghttp2 go straight through the table of addresses.
        flags += ["-O3", "-g1", "-fno-plt"]
    return flags


class Build(build):
    """Puts each variant in its own folder."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = str(BUILD)
        self.build_lib = str(BUILD / "lib")
        self.build_temp = str(BUILD / "temp")


class BuildExtensions(build_ext):
    """Builds from generated sources and probed features."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # An editable install asks for a temporary folder; in this one the next build finds what is done.
        self.build_lib = str(BUILD / "lib")
        self.build_temp = str(BUILD / "temp")
        if VARIANT != "normal" and (self.inplace or self.editable_mode):
            sys.exit(f"error: the {VARIANT} build goes to {BUILD}, not in place: use `setup.py build`")

    def run(self) -> None:
        BUILD.mkdir(parents=True, exist_ok=True)
        # Two builds of one variant at the same time would read each other's half-written files.
        with (BUILD / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            generate()
            super().run()

    def build_extensions(self) -> None:
        from Cython.Build import cythonize

        flags = pkg_config("--cflags")
        libraries = pkg_config("--libs")
        features = probe(flags, libraries)
        macros: dict[str, Any] = {**features, "RELAY_DEBUG": int(DEBUG or bool(SANITIZE))}
        settings = BUILD / "settings.json"
        write_if_changed(settings, json.dumps([macros, compile_flags(), libraries], indent=1))
        native = [str(path) for path in Path("relay/native").glob("*.[ph]*")]
        for extension in self.extensions:
            extension.define_macros += [(name, str(value)) for name, value in macros.items()]
            extension.extra_compile_args += [*flags, *compile_flags()]
            extension.extra_link_args += libraries
            if FUZZ:
                extension.extra_link_args += ["-fsanitize=address,undefined", "-shared-libasan"]
                # The preloaded runtime has coverage hooks of the same names as the driver's.
                extension.extra_link_args.append("-Wl,-Bsymbolic")
            elif SANITIZE:
                extension.extra_link_args.append(f"-fsanitize={','.join(SANITIZE)}")
            extension.include_dirs += ["relay", "relay/native", "."]
            extension.depends += [*native, str(settings)]
            if extension.name == "shown":
                extension.depends += write_parts("shown", None if SHOWN == "1" else set(SHOWN.split(",")))
            if extension.name == "fuzz_targets":
                extension.depends += write_parts("fuzz_targets")
                extension.extra_objects.append(clang_library("libclang_rt.fuzzer_no_main"))
                # The driver is C++.
                extension.libraries.append("stdc++")
        translated = cythonize(
            self.extensions,
            build_dir=str(BUILD / "c"),
            include_path=["."],
            # Line directives: warnings, profiles and stack traces name the .pxd, not the C file.
            emit_linenums=True,
            compiler_directives={
                "language_level": 3,
                "boundscheck": False,
                "wraparound": False,
                "cdivision": True,
                "initializedcheck": False,
            },
        )
        # cythonize answers with new objects that setuptools has not prepared.
        by_name = {extension.name: extension for extension in translated}
        for extension in self.extensions:
            extension.sources = by_name[extension.name].sources
            extension.depends = by_name[extension.name].depends
        super().build_extensions()

    def get_ext_fullpath(self, ext_name: str) -> str:
        if ext_name in TEST_MODULES:
            return str(BUILD / "tests" / self.get_ext_filename(ext_name))
        return super().get_ext_fullpath(ext_name)

    def copy_extensions_to_source(self) -> None:
        built = self.extensions
        self.extensions = [extension for extension in built if extension.name not in TEST_MODULES]
        super().copy_extensions_to_source()
        self.extensions = built


class BuildPython(build_py):
    """Generates the message classes before the package's modules are gathered."""

    def run(self) -> None:
        generate()
        super().run()


def extensions() -> list[Extension]:
    if FUZZ:
        return [Extension("fuzz_targets", [TEST_MODULES["fuzz_targets"]])]
    built = [Extension("relay._fastpath", ["relay/_fastpath.pyx"])]
    if SHOWN:
        built.append(Extension("shown", [TEST_MODULES["shown"]]))
    return [extension for extension in built if (HERE / extension.sources[0]).exists()]


setup(
    ext_modules=extensions(),
    cmdclass={"build": Build, "build_ext": BuildExtensions, "build_py": BuildPython},
)
