"""The command line as a whole: what it loads, and what it says when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from kornia_ditf.cli import failures
from kornia_ditf.cli.failures import exit_code
from kornia_ditf.errors import (
    CaptureError,
    DiTFError,
    GatedRepositoryError,
    HubUnreachableError,
    PluginWarning,
)
from kornia_ditf.registry import lookup as registry

Run = Callable[..., Result]
MODEL_LIBRARIES = {
    "PIL",
    "accelerate",
    "cv2",
    "diffusers",
    "huggingface_hub",
    "kornia",
    "matplotlib",
    "transformers",
}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def output_and_modules(
    *arguments: str, plugins: str = "", environment: dict[str, str] | None = None
) -> tuple[str, set[str]]:
    """Run a command in a fresh interpreter; its output, and the packages it loaded."""
    variables = {"KORNIA_DITF_PLUGINS": plugins, **(environment or {})}
    script = (
        f"import os, sys; os.environ.update({variables!r})\n"
        f"import kornia_ditf.cli; sys.argv = ['kornia-ditf', *{arguments!r}]\n"
        "try: kornia_ditf.cli.main()\n"
        "except SystemExit: print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = python("-c", script)
    assert done.stderr == ""
    text, _, names = done.stdout.rpartition("LOADED")
    return text, set(names.split())


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--help"], {}, "130  interrupted"),
        (["--version"], {}, "kornia-ditf "),
        (["match", "--help"], {}, "--long-side"),
        (
            [],
            {
                "_KORNIA_DITF_COMPLETE": "complete_bash",
                "COMP_WORDS": "kornia-ditf mat",
                "COMP_CWORD": "1",
            },
            "match\n",
        ),
    ],
)
@pytest.mark.parametrize("with_plugins", [False, True])
def test_help_version_and_completion_load_no_torch(
    arguments: list[str], environment: dict[str, str], expected: str, with_plugins: bool
) -> None:
    installed = ",".join(entry_points(group="kornia_ditf").names) if with_plugins else ""
    text, modules = output_and_modules(*arguments, plugins=installed, environment=environment)
    assert expected in text
    assert modules.isdisjoint({*MODEL_LIBRARIES, "torch", "rich"})


def test_listing_backbones_loads_no_model_library() -> None:
    installed = ",".join(entry_points(group="kornia_ditf").names)
    text, modules = output_and_modules("backbones", plugins=installed)
    assert "flux.1-dev" in text
    assert modules.isdisjoint(MODEL_LIBRARIES)


def test_the_module_runs_like_the_command() -> None:
    done = python("-m", "kornia_ditf", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("kornia-ditf ")


@pytest.mark.parametrize("where", ["typer.main.get_command", "typer.core.TyperGroup.parse_args"])
def test_a_signal_is_one_line_before_any_command_runs_too(where: str) -> None:
    code = (
        "import os, signal, typer.core, typer.main, kornia_ditf.cli\n"
        f"{where} = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)\n"
        "kornia_ditf.cli.main()\n"
    )
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "error: interrupted\n")


def test_an_error_is_one_line_and_an_exit_code() -> None:
    done = python("-m", "kornia_ditf", "backbones", "show", "flux1-dev")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "did you mean 'flux.1-dev'?" in done.stderr


def test_an_empty_name_is_no_default(run: Run, tmp_path: Path) -> None:
    result = run("match", "a.png", "b.png", "--backbone", "")
    assert result.exit_code == 4 and "the name of a backbone is empty" in result.stderr
    result = run("inspect", "a.png", "--out", "")
    assert result.exit_code == 2 and "the name is empty" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("extract", "a.png", "--out", "s3://bucket/maps"), ("extract", "gs://b/a.png", "--out", "o")],
)
def test_a_url_in_place_of_a_path_is_refused_before_a_folder_of_its_name_is_made(
    arguments: tuple[str, ...], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2 and "is a URL, expected a path" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ("match", "~/no.png", "b.png"),
        ("match", "a.png", "b.png", "--picture=~/no/p.png"),
        ("match", "a.png", "b.png", "--json-file=~/no/p.json"),
        ("study", "plan", "~/no.yaml"),
        ("study", "report", "~/no"),
        ("datasets", "check", "~/no"),
    ],
)
def test_a_tilde_that_the_shell_left_is_the_home_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(name)
    result = run(*command)
    assert result.exit_code and str(tmp_path / "no") in result.stderr


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [(["mach"], "'match'"), (["match", "--blok", "1"], "--block"), (["backbones", "shwo"], "show")],
)
def test_wrong_commands_and_options_suggest_the_nearest(
    run: Run, arguments: list[str], suggestion: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and suggestion in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(CaptureError("x"), 1), (GatedRepositoryError("x"), 4), (HubUnreachableError("x"), 4)],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_a_documented_exit_code(error: DiTFError, code: int) -> None:
    assert exit_code(error) == code
    assert f"\n  {code}  " in failures.EXIT_CODES


def failing_with(error: BaseException) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


def test_a_hub_that_refuses_is_one_line(
    run: Run, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "owner/name is gated:\n accept the licence, then run `hf auth login`"
    monkeypatch.setattr(registry, "create_descriptor", failing_with(GatedRepositoryError(message)))
    result = run("match", images[0], images[1])
    assert result.exit_code == 4
    assert result.stderr == f"error: {' '.join(message.split())}\n"


def test_an_interruption_is_a_word_and_130(
    run: Run, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "create_descriptor", failing_with(KeyboardInterrupt()))
    result = run("match", images[0], images[1])
    assert (result.exit_code, result.stderr) == (130, "error: interrupted\n")


def test_a_bug_keeps_its_traceback(
    run: Run, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "create_descriptor", failing_with(ZeroDivisionError("a bug")))
    assert isinstance(run("match", images[0], images[1]).exception, ZeroDivisionError)


def test_only_warnings_about_plugins_are_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> dict[str, object]:
        warnings.warn("of a library", UserWarning, stacklevel=1)
        warnings.warn("plugin 'x' is left out", PluginWarning, stacklevel=1)
        return {}

    monkeypatch.setattr(registry, "list_backbones", warn)
    result = run("backbones", "--json")
    assert (result.exit_code, result.stderr) == (0, "warning: plugin 'x' is left out\n")


def write_bad_images(folder: Path) -> dict[str, Path]:
    """Write a good.png and bad files beside it."""
    pixels = np.linspace(0, 255, 64 * 64 * 3).astype(np.uint8).reshape(64, 64, 3)
    Image.fromarray(pixels).save(folder / "good.png")
    content = (folder / "good.png").read_bytes()
    header = bytearray(content)
    header[16:24] = (30_000).to_bytes(4, "big") * 2
    bad = {"missing": folder / "missing.png", "folder": folder}
    for name, data in {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "text": b"no image at all",
        "huge": bytes(header),
    }.items():
        bad[name] = folder / f"{name}.png"
        bad[name].write_bytes(data)
    for name, size in (("dot", (1, 1)), ("line", (1, 5000)), ("thin", (8, 50_000))):
        bad[name] = folder / f"{name}.png"
        Image.new("RGB", size).save(bad[name])
    return bad


def test_each_bad_image_is_one_line_that_names_it(run: Run, model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "out.png"
    for name, path in write_bad_images(tmp_path).items():
        result = run("match", path, tmp_path / "good.png", "-b", model, "--picture", picture)
        assert (result.exit_code, result.stdout) == (3, ""), name
        assert result.stderr.count("\n") == 1 and str(path) in result.stderr
    assert not picture.exists()


def test_a_cmyk_image_is_taken(run: Run, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (64, 48), (10, 200, 30, 0)).save(path)
    assert run("match", path, path, "-b", model, "--long-side", 32).exit_code == 0


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--block", "99", "must lie in [0, 3], got 99"),
        ("--block", "-1", "block must be 0 or more"),
        ("--timestep", "2600", "timestep must lie in [0, 1000]"),
        ("--treatment", "adalm", "adaln+discard"),
        ("--long-side", "-5", "long_side"),
        ("--ensemble", "0", "ensemble must be 1 or more"),
        ("--dtype", "float12", "bfloat16"),
        ("--device", "toaster", "such as 'cpu'"),
        ("--prompt", "a dog", "takes no prompts"),
        ("--picture", "matches.txt", ".png"),
        ("--limit", "0", "--limit"),
        ("--min-score", "1.5", "--min-score"),
    ],
)
def test_a_wrong_value_is_one_line_and_2(
    run: Run, images: list[Path], model: Path, option: str, value: str, expected: str
) -> None:
    result = run("match", images[0], images[1], "-b", model, option, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1 and expected in result.stderr


def test_a_corrupt_or_missing_shard_is_one_line_and_4(
    run: Run, images: list[Path], massive_model: Path
) -> None:
    shard = min(massive_model.glob("transformer/*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-7])
    for _ in ("corrupt", "missing"):
        result = run("match", images[0], images[1], "-b", massive_model)
        assert (result.exit_code, result.stdout) == (4, "")
        assert result.stderr.count("\n") == 1 and shard.name in result.stderr
        shard.unlink(missing_ok=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["backbones"], ["backbones", "--json"], ["--help"]])
def test_a_full_standard_output_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "kornia_ditf", *arguments], stdout=full, stderr=-1, text=True
        )
    assert run.returncode == 5
    assert run.stderr.startswith("error: cannot write standard output (No space left")
    assert run.stderr.count("\n") == 1


def test_a_closed_standard_output_is_one_line() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "kornia_ditf", "backbones"],
        stderr=-1,
        text=True,
        preexec_fn=lambda: os.close(1),
    )
    assert run.returncode == 5
    assert run.stderr.startswith("error: standard output is closed") and run.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "kornia_ditf", "backbones"], stdout=writer, stderr=-1, text=True
        )
    finally:
        os.close(writer)
    assert (run.returncode, run.stderr) == (1, "")  # as Python itself and click end


def test_python_without_docstrings_is_told_to_keep_them() -> None:
    run = python("-OO", "-m", "kornia_ditf", "--help")
    assert run.returncode == 1 and run.stderr.count("\n") == 1
    assert "python -OO (PYTHONOPTIMIZE=2) removes" in run.stderr


def test_names_send_no_commands_to_the_terminal(run: Run, images: list[Path], model: Path) -> None:
    odd = images[0].with_name("\x1b]0;owned\x07\x1b[31mred.png")
    images[0].rename(odd)
    broken = images[1].with_name("\x1b[31m.png")
    broken.write_bytes(b"")
    out = images[2].parent / "out"
    for arguments in (("match", odd, odd), ("match", broken, odd), ("extract", odd, "--out", out)):
        result = run(*arguments, "-b", model, "--long-side", 48)
        assert result.exit_code == (3 if broken in arguments else 0)
        assert not {"\x1b", "\x07"} & set(result.output)
