"""experiments/golden.py: what it leaves, that it agrees with a slow reference, and what it refuses."""

import hashlib
import json
import shutil
import subprocess

import numpy as np
import pytest
from programs import Program, check_refusal, contents, names

from intnet.export import Trace, compare_traces, read_mem

golden = Program("golden.py")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden") / "published"
    run = golden("--out", folder)
    assert run.returncode == 0, run
    return folder, run


def reference(steps, samples=569):
    """Return outputs, deltas and weights of the 30 x 30 case, in Python integers."""
    from sklearn.datasets import load_breast_cancer

    def word(value):
        return (value + 2**19) % 2**20 - 2**19

    data = load_breast_cancer().data
    inputs = [[round(float(value) * 65536) for value in row] for row in data / data.max(axis=0)]
    weights = [[round(float(value)) for value in row] for row in np.random.RandomState(0xDEADBEEC).normal(0, 500, (30, 30))]
    outputs, deltas, every = [], [], [[list(row) for row in weights]]
    for step in range(steps):
        x = inputs[step % samples]
        a = [word(sum(w * v for w, v in zip(row, x, strict=True)) >> 16) for row in weights]
        delta = [word(v - one) for v, one in zip(x, a, strict=True)]
        for row, one in zip(weights, delta, strict=True):
            for j, v in enumerate(x):
                row[j] = word(row[j] + word(((one * v) >> 16) >> 9))
        outputs.append(a), deltas.append(delta), every.append([list(row) for row in weights])
    return inputs, outputs, deltas, every


def test_the_published_case_is_that_of_the_reference(published):
    folder, run = published
    assert names(folder) == {"README.md", "manifest.json", "report.html", "traces", "vectors", "verilog"}
    inputs, outputs, deltas, weights = reference(10)
    options = {"radix": "binary", "words_per_line": 30}
    for name, due in (
        ("inputs", inputs),
        ("outputs", outputs),
        ("deltas", deltas),
        *((f"weights{i}", one) for i, one in enumerate(weights)),
    ):
        assert read_mem(folder / f"vectors/{name}.mem", "fxp-s20/16", **options).tolist() == due, name
    assert len((folder / "vectors/inputs.mem").read_text().splitlines()[0]) == 600
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["left_their_word"].values()) == {0}
    assert "Every number fitted into its word." in run.stdout
    assert manifest["not_written"] == {}
    assert len([one for one in manifest["files"] if one["path"].endswith("bench.v")]) == 10
    for one in manifest["files"]:
        content = (folder / one["path"]).read_bytes()
        assert (one["sha256"], one["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        if one["path"].startswith("vectors/"):
            back = read_mem(folder / one["path"], one["format"], radix=one["radix"], words_per_line=one["words_per_line"])
            assert list(back.shape) == one["shape"]
    trace = Trace.load(folder / "traces/steps.npz")
    assert trace.steps == tuple(range(10))
    assert np.array_equal(trace["step9/linear.weight/after"].mantissa, weights[10])


def test_the_same_command_gives_the_same_bytes(published, tmp_path):
    folder, _ = published
    before = contents(folder)
    assert golden("--out", folder, "--quiet").returncode == 0
    assert contents(folder) == before
    assert golden("--out", tmp_path / "other", "--quiet").returncode == 0
    assert contents(tmp_path / "other") == before


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed (apt-get install iverilog)")
def test_the_bench_of_the_published_case(published, tmp_path):
    folder = tmp_path / "bench"
    shutil.copytree(published[0] / "verilog/step9/linear", folder)
    for bit, due in ((0, 0), (1, 1)):
        path = folder / "weights_after.mem"
        lines = path.read_text().splitlines()
        lines[-1] = f"{int(lines[-1], 16) ^ bit:05x}"
        path.write_text("\n".join(lines) + "\n")
        command = "iverilog -g2012 -o bench bench.v intnet_dense.v && vvp bench"
        run = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=False)
        assert run.returncode == due, run
        assert ("PASS: 30 outputs and 900 weights agree" in run.stdout) == (not due)


def test_a_trained_network_and_one_of_a_checkpoint(tmp_path):
    train = Program("train.py")
    assert train("--epochs", 1, "--hidden", "8", "--out", tmp_path / "run", "--quiet", "--no-plots").returncode == 0
    given = "--case", "mlp", "--from", tmp_path / "run/checkpoint.npz", "--samples", 3, "--steps", 1, "--batch", 4
    run = golden(*given, "--out", tmp_path / "a")
    assert run.returncode == 0, run
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert [one["shape"] for one in manifest["files"] if one["path"] == "vectors/input.mem"] == [[3, 8, 8, 1]]
    assert len([one for one in manifest["files"] if one["path"].endswith("bench.v")]) == 2
    inference, steps = (Trace.load(tmp_path / "a/traces" / name) for name in ("inference.npz", "steps.npz"))
    assert np.array_equal(inference["inference/dense1.weight/before"].mantissa, steps["step0/dense1.weight/before"].mantissa)
    assert golden("--case", "mlp", "--out", tmp_path / "b", "--recipe", "int8", "--quiet").returncode == 0
    skipped = json.loads((tmp_path / "b/manifest.json").read_text())["not_written"]
    assert "no master" in skipped["the update in verilog of dense1, step 0"]
    with pytest.raises(ValueError, match="different networks"):
        compare_traces(tmp_path / "a/traces/steps.npz", tmp_path / "b/traces/steps.npz")


def test_bad_input_ends_with_code_2(published, tmp_path):
    folder, _ = published
    out = "--out", tmp_path / "x"
    for arguments, part in (
        (("--case", "nonsense"), "invalid choice: 'nonsense'"),
        (("--steps", 0), "got '0'; allowed is an integer in 1.."),
        (("--recipe", "int8", *out), "recipe was given as 'int8', and the published case has none"),
        (("--samples", 570, *out), "breast-cancer has 569 samples, got samples 570"),
        (("--case", "mlp", "--from", tmp_path / "none.npz", *out), "none.npz cannot be read"),
        (("--case", "mlp", "--from", tmp_path / "none.npz", "--epochs", 2, *out), "the checkpoint knows it"),
        (("--case", "mlp", "--recipe", "nonsense", *out), "recipe 'nonsense' is unknown"),
        (("--steps", 3, "--out", folder), "holds case breast-cancer of other settings"),
        (("--out", folder / "manifest.json"), "is not a folder"),
        (("--case", "lenet5", "--data-dir", tmp_path, *out), "mnist"),
    ):
        check_refusal(golden(*arguments), part)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    check_refusal(golden("--out", tmp_path / "full"), "holds note.txt and no manifest.json")
    assert golden("--help").stdout.count("\n") > 40


def test_fresh_sets_the_old_folder_aside(tmp_path):
    assert golden("--steps", 1, "--out", tmp_path / "a", "--quiet").returncode == 0
    run = golden("--steps", 2, "--out", tmp_path / "a", "--fresh")
    assert run.stdout.startswith("The old results are in ")
    assert len(names(tmp_path)) == 2


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_c_sources_agree_with_the_vectors_as_the_readme_says(tmp_path):
    run = golden("--case", "mlp", "--samples", 5, "--steps", 1, "--batch", 4, "--out", tmp_path / "mlp")
    assert run.returncode == 0, run
    readme = (tmp_path / "mlp/README.md").read_text()
    command = next(line.strip() for line in readme.splitlines() if "gcc" in line)
    made = subprocess.run(
        command.replace("-Wall", "-Wall -Werror"), shell=True, cwd=tmp_path / "mlp", capture_output=True, text=True
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "PASS: 5 samples agree\n", "")
    assert "model_train_step" in (tmp_path / "mlp/c/model.h").read_text()
    last = next(iter(sorted((tmp_path / "mlp/vectors").glob("dense3.forward.mem"))))
    words = last.read_text().splitlines()
    last.write_text("\n".join([*words[:-1], f"{int(words[-1], 16) ^ 1:04x}"]) + "\n")
    made = subprocess.run("./check", cwd=tmp_path / "mlp", capture_output=True, text=True)
    assert (made.returncode, made.stdout) == (1, "FAIL: sample 4, output 9\n")


def test_what_cannot_be_written_is_in_the_manifest_and_not_in_the_readme(tmp_path):
    run = golden(
        "--case", "mlp", "--recipe", "int8", "--samples", 3, "--steps", 1, "--batch", 3, "--out", tmp_path / "mlp", "--quiet"
    )
    assert run.returncode == 0, run
    left_out = json.loads((tmp_path / "mlp/manifest.json").read_text())["not_written"]
    assert "fixed-point recipe" in left_out["C"], left_out
    readme = (tmp_path / "mlp/README.md").read_text()
    assert not (tmp_path / "mlp/c").exists()
    assert "gcc" not in readme
    for line in readme.splitlines():
        if line.strip().startswith("cd "):
            assert (tmp_path / "mlp" / line.split()[1] / "bench.v").is_file()


def test_too_many_samples_or_steps_are_refused_before_anything_is_trained(tmp_path):
    check_refusal(golden("--case", "mlp", "--samples", 100000, "--out", tmp_path / "out"), "297 test samples", "100000")
    check_refusal(golden("--case", "mlp", "--steps", 100000, "--out", tmp_path / "out"), "800000", "1500")
    assert not names(tmp_path / "out") if (tmp_path / "out").exists() else True
