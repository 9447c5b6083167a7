"""What a user can rely on of the data: what is accepted, what is refused and how, what is downloaded, what is drawn."""

import hashlib
import io
import json
import os
import pickle
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from tpsnet_lib.config import DataConfig
from tpsnet_lib.data import cifar10, datasets, shapes10
from tpsnet_lib.errors import ConfigError, DataError

BATCHES = [*cifar10._FILES["train"], *cifar10._FILES["test"]]
SIZE = 20  # images in a batch file of the tests


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Batch files of 20 images, and no data set to be found but the test's own."""
    monkeypatch.setattr(cifar10, "FILE_SIZE", SIZE)
    monkeypatch.setattr(cifar10, "project_root", lambda: tmp_path / "no project")
    monkeypatch.delenv("TPSNET_DATA", raising=False)
    monkeypatch.delenv("TPSNET_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels [20] and pixels [20, 3072] of each batch."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 10, SIZE, np.uint8), rng.integers(0, 256, (SIZE, 3072), np.uint8)) for name in BATCHES
    }


@pytest.fixture
def binary(batches, tmp_path: Path) -> Path:
    """A root with the binary layout, in a folder with spaces and another alphabet in its name."""
    root = tmp_path / "мои данные à moi"
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, (labels, pixels) in batches.items():
        np.concatenate([labels[:, None], pixels], axis=1).tofile(folder / f"{name}.bin")
    return root


@pytest.fixture
def pickles(batches, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of the python layout; torchvision's table of official sums is theirs for the test."""
    files = {
        name: pickle.dumps({"labels": labels.tolist(), "data": pixels}, protocol=2)
        for name, (labels, pixels) in batches.items()
    } | {"batches.meta": pickle.dumps({"label_names": list(cifar10.CLASSES)}, protocol=2)}
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in BATCHES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, sums[name]] for name in BATCHES[5:]])
    return files


@pytest.fixture
def python(pickles, tmp_path: Path) -> Path:
    """A root with the python layout."""
    root = tmp_path / "python layout"
    (root / "cifar-10-batches-py").mkdir(parents=True)
    for name, content in pickles.items():
        (root / "cifar-10-batches-py" / name).write_bytes(content)
    return root


def refused(*said: str, error: type[Exception] = DataError):
    """One line that says all of these."""
    ahead = "".join(f"(?=.*{re.escape(text)})" for text in said)
    return pytest.raises(error, match=rf"\A{ahead}[^\n]*\Z")


# --- reading ---------------------------------------------------------------------------------------------------------


def test_both_layouts_give_the_same_images_in_the_official_order(binary, python, batches):
    one, other = datasets.load_train("cifar10", binary), datasets.load_train("cifar10", python)
    assert one.images.shape == (100, 3, 32, 32)
    assert (one.images.dtype, one.labels.dtype, one.indices.dtype) == (torch.uint8, torch.int64, torch.int64)
    assert one.images.equal(other.images)
    assert one.labels.equal(other.labels)
    assert one.indices.tolist() == list(range(100))
    labels, pixels = batches["data_batch_3"]
    assert one.images[45].flatten().tolist() == pixels[5].tolist()
    assert one.labels[45] == labels[5]
    assert datasets.load_test("cifar10", binary).images.equal(datasets.load_test("cifar10", python).images)


def test_the_fingerprint_is_of_the_content_and_the_stamp_says_what_is_known(binary, python, monkeypatch):
    unknown = datasets.fingerprint("cifar10", binary)
    assert (unknown.stamp, unknown.verified) == ("CIFAR-10 (unverified)", False)
    official = datasets.fingerprint("cifar10", python)
    assert (official.stamp, official.verified) == ("CIFAR-10", True)
    assert official.sha256 == unknown.sha256 != datasets.test_fingerprint("cifar10", binary).sha256
    assert datasets.load_train("cifar10", python).stamp == "CIFAR-10"

    monkeypatch.setitem(cifar10.KNOWN, unknown.sha256, "CIFAR-10 (a named copy)")
    monkeypatch.setattr(cifar10, "_fingerprints", {})
    assert datasets.load_train("cifar10", binary).stamp == "CIFAR-10 (a named copy)"
    assert datasets.fingerprint("cifar10", binary).verified


def test_a_changed_file_changes_the_fingerprint(binary):
    before = datasets.fingerprint("cifar10", binary)
    path = binary / "cifar-10-batches-bin" / "data_batch_1.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    assert datasets.fingerprint("cifar10", binary).sha256 != before.sha256


def test_training_works_without_the_test_file(binary):
    (binary / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    assert len(datasets.load_train("cifar10", binary)) == 100
    assert datasets.fingerprint("cifar10", binary)
    with refused("test_batch.bin is missing", "tpsnet data download"):
        datasets.load_test("cifar10", binary)


def test_places_are_looked_through_in_order_and_a_named_one_is_never_replaced(binary, tmp_path, monkeypatch):
    assert cifar10.find_root() is None
    with refused("no CIFAR-10 in data or", "tpsnet data download", "TPSNET_DATA", "data.dataset=shapes10"):
        datasets.load_train("cifar10")

    (tmp_path / "no project").mkdir()
    (tmp_path / "no project" / "data").symlink_to(binary)
    assert cifar10.find_root() == tmp_path / "no project" / "data"
    (tmp_path / "data").symlink_to(binary)
    assert cifar10.find_root() == Path("data")
    monkeypatch.setenv("TPSNET_DATA", str(binary))
    assert cifar10.find_root() == binary
    folder = binary / "cifar-10-batches-bin"
    assert cifar10.find_root(folder) == folder
    assert len(datasets.load_train("cifar10", folder)) == 100
    assert cifar10.find_root(binary / "no-such.tar.gz") is None

    monkeypatch.setenv("TPSNET_DATA", str(tmp_path / "nowhere"))
    assert cifar10.find_root() is None
    with refused("no CIFAR-10 in", "nowhere", "tpsnet data download"):
        datasets.load_train("cifar10")
    with refused("elsewhere, which does not exist"):
        datasets.load_train("cifar10", tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with refused("empty, and no folder of photographs for each class: get it with"):
        datasets.load_train("cifar10", tmp_path / "empty")


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_missing_batch_is_named(binary):
    (binary / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with refused("data_batch_4.bin is missing", "tpsnet data download"):
        datasets.load_train("cifar10", binary)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
def test_a_batch_of_the_wrong_size_is_refused(binary, change: Callable[[bytes], bytes]):
    path = binary / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(change(path.read_bytes()))
    with refused("data_batch_2.bin has", "bytes where a batch has 61,460"):
        datasets.load_train("cifar10", binary)


def test_a_label_above_9_is_refused(binary):
    path = binary / "cifar-10-batches-bin" / "data_batch_5.bin"
    content = bytearray(path.read_bytes())
    content[7 * 3073] = 10
    path.write_bytes(content)
    with refused("data_batch_5.bin", "record 7 has label 10"):
        datasets.load_train("cifar10", binary)


@pytest.mark.parametrize("beside", ["root", "files"])
def test_sums_beside_the_files_are_checked_for_the_files_that_are_read(binary, beside):
    folder = binary / "cifar-10-batches-bin"
    prefix = "cifar-10-batches-bin/" if beside == "root" else ""
    lines = [
        f"{hashlib.sha256((folder / f'{name}.bin').read_bytes()).hexdigest()}  {prefix}{name}.bin" for name in BATCHES
    ]
    ((binary if beside == "root" else folder) / "SHA256SUMS").write_text("\n".join(lines))
    assert len(datasets.load_train("cifar10", binary)) == 100

    (folder / "test_batch.bin").write_bytes(b"torn")  # of no concern to training
    path = folder / "data_batch_1.bin"
    assert len(datasets.load_train("cifar10", binary)) == 100
    with refused("test_batch.bin is damaged", "SHA256SUMS"):
        datasets.load_test("cifar10", binary)
    content = bytearray(path.read_bytes())
    content[1000] ^= 16  # one bit, in a pixel
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    with refused("data_batch_1.bin is damaged", "SHA256SUMS"):
        datasets.load_train("cifar10", binary)


def test_a_pickle_with_a_wrong_md5_is_never_opened(python, tmp_path):
    trace = tmp_path / "the pickle ran"

    class Bomb:
        def __reduce__(self):
            return open, (str(trace), "w")

    content = pickle.dumps(Bomb())
    pickle.loads(content).close()
    assert trace.exists()  # it would run if it were opened
    trace.unlink()
    (python / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with refused("data_batch_2", "wrong MD5", "not opened"):
        datasets.load_train("cifar10", python)
    assert not trace.exists()


def test_a_batch_that_cannot_be_read_is_one_line(binary):
    path = binary / "cifar-10-batches-bin" / "data_batch_1.bin"
    path.unlink()
    path.mkdir()
    with refused("data_batch_1.bin is no ordinary file"):
        datasets.load_train("cifar10", binary)


def test_inexact_images_are_listed_for_the_binary_layout(binary, python):
    assert cifar10.inexact_indices(binary, "train") == []
    for root in (binary, python):
        (root / "inexact.json").write_text(json.dumps({"train": [3, 50], "test": [7]}))
    assert cifar10.inexact_indices(binary, "train") == [3, 50]
    assert cifar10.inexact_indices(binary, "test") == [7]
    assert cifar10.inexact_indices(python, "test") == []  # official MD5s: exact
    (binary / "inexact.json").write_text("{")
    with refused("inexact.json"):
        cifar10.inexact_indices(binary, "train")


# --- split, sets, normalisation --------------------------------------------------------------------------------------


def test_the_committed_split_is_the_one_that_was_drawn():
    fit, validation = datasets.split("cifar10")
    assert (len(fit), len(validation), fit.dtype) == (45_000, 5_000, torch.int64)
    both = torch.cat([fit, validation])
    assert both.sort().values.equal(torch.arange(50_000))
    drawn = hashlib.sha256(both.numpy().astype("<u2").tobytes()).hexdigest()
    assert drawn == "3f14413fc6ec6e71b6ea70010c3b2c1df82efc9eb17538036e552fb19e40ba96"


def test_a_split_cannot_be_changed_by_who_reads_it():
    datasets.split("cifar10")[0].zero_()
    assert datasets.split("cifar10")[0].count_nonzero() >= 44_999


def test_sizes_are_prefixes_with_equal_classes():
    fit, validation = datasets.fit_and_validation(DataConfig("shapes10", train_size=300, validation_size=50))
    assert fit.labels.bincount().tolist() == [30] * 10
    assert validation.labels.bincount().tolist() == [5] * 10
    assert fit.indices.tolist() == list(range(300))
    assert validation.indices.tolist() == list(range(9000, 9050))
    assert fit.stamp == "shapes10"
    train = datasets.load_train("shapes10")
    assert fit.images.equal(train.images[:300])
    assert validation.images.equal(train.images[9000:9050])


def test_fit_on_all_adds_the_validation_images_and_still_evaluates_them():
    fit, validation = datasets.fit_and_validation(DataConfig("shapes10", fit_on="all"))
    assert (len(fit), len(validation)) == (10_000, 1_000)
    assert fit.images[9000:].equal(validation.images)


def test_more_images_than_there_are_is_an_error_with_the_largest_size():
    with refused("data.train_size is 45000", "9000", error=ConfigError):
        datasets.fit_and_validation(DataConfig("shapes10", train_size=45_000))
    with refused("data.validation_size is 5001", "5000", error=ConfigError):
        datasets.fit_and_validation(DataConfig("cifar10", validation_size=5_001))


def test_normalised_images_are_those_of_torchvision():
    from torchvision.transforms import v2

    images = datasets.load_test("shapes10").images[:16]
    expected = v2.Normalize(datasets.MEAN, datasets.STD)(v2.functional.to_dtype(images, torch.float32, scale=True))
    for layout in (images, images.contiguous(memory_format=torch.channels_last)):
        got = datasets.normalise(layout)
        assert got.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    assert images.equal(datasets.load_test("shapes10").images[:16])


def test_a_subset_keeps_the_official_positions():
    some = datasets.load_test("shapes10").subset(torch.tensor([5, 3])).to("cpu")
    assert some.indices.tolist() == [5, 3]
    assert some.images.equal(datasets.load_test("shapes10").images[[5, 3]])


# --- shapes10 --------------------------------------------------------------------------------------------------------


def test_shapes10_is_the_same_on_every_machine():
    assert datasets.fingerprint("shapes10").sha256 == "99a91410082013b72fdb43e09ea7ded5e2e5b05f64b86c62cdf2de95a471ea41"
    assert datasets.test_fingerprint("shapes10") == cifar10.Fingerprint(
        "shapes10", "701c24f65d91effcce511938aabda00baeee3c6fa45957638f88e4e57c034ffa", True
    )


def test_an_image_of_shapes10_does_not_depend_on_what_else_is_drawn():
    shapes10._chunk.cache_clear()
    few, labels = shapes10.draw("train", np.array([4321, 7]))
    train = datasets.load_train("shapes10")
    assert (few == train.images[[4321, 7]].numpy()).all()
    assert (labels == train.labels[[4321, 7]].numpy()).all()


def test_shapes10_has_the_form_of_cifar10_with_equal_classes_in_every_ten():
    train, test = datasets.load_train("shapes10"), datasets.load_test("shapes10")
    assert (train.images.shape, train.images.dtype) == ((10_000, 3, 32, 32), torch.uint8)
    assert len(test) == 2_000
    assert train.labels.view(-1, 10).sort(1).values.equal(torch.arange(10).expand(1000, 10))
    assert len(torch.cat([train.images, test.images]).flatten(1).unique(dim=0)) == 12_000
    assert len(datasets.class_names("shapes10")) == len(datasets.class_names("cifar10")) == 10


def test_shapes10_is_not_read_off_mean_images():
    train, test = datasets.load_train("shapes10"), datasets.load_test("shapes10")
    pixels = train.images.flatten(1).float()
    means = torch.stack([pixels[train.labels == label].mean(0) for label in range(10)])
    nearest = torch.cdist(test.images.flatten(1).float(), means).argmin(1)
    assert 0.12 < (nearest == test.labels).float().mean() < 0.45


# --- download --------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(pickles) -> bytes:
    """The official files in an archive, and one more."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        files = {f"cifar-10-batches-py/{name}": content for name, content in pickles.items()}
        for name, content in {**files, "other": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Host:
    """A server on this machine: what it has by path, and what it was asked for."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.path)
                content = pages.get(self.path)
                self.send_response(404 if content is None else 200)
                length = len(content or b"") + (1000 if self.path == "/cut" else 0)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"


@pytest.fixture
def host(archive) -> Iterator[Host]:
    flipped = bytearray(archive)
    flipped[len(archive) // 2] ^= 1
    host = Host({"/good": archive, "/flipped": bytes(flipped), "/cut": archive[:-100], "/page": b"<html>sorry</html>"})
    yield host
    host.server.shutdown()
    host.server.server_close()


def test_mirrors_are_tried_in_turn_until_one_gives_the_right_archive(host, archive, tmp_path):
    root = tmp_path / "новая папка"
    urls = [host.url(path) for path in ("/gone", "/page", "/flipped", "/cut", "/good", "/never")]
    assert cifar10.download(root, urls, hashlib.md5(archive).hexdigest()) == root
    assert "/never" not in host.asked
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]
    assert datasets.load_train("cifar10", root).stamp == "CIFAR-10"
    assert CIFAR10.meta["filename"] in {path.name for path in (root / "cifar-10-batches-py").iterdir()}


def test_a_good_copy_is_not_downloaded_again_and_a_damaged_one_is_replaced(host, archive, python):
    md5 = hashlib.md5(archive).hexdigest()
    assert cifar10.download(python, [host.url("/good")], md5) == python
    assert host.asked == []
    damaged = python / "cifar-10-batches-py" / "data_batch_3"
    damaged.write_bytes(b"torn")
    (python / "cifar-10-batches-py" / "notes.txt").write_text("mine")
    cifar10.download(python, [host.url("/good")], md5)
    assert datasets.load_train("cifar10", python).stamp == "CIFAR-10"
    assert (python / "cifar-10-batches-py" / "notes.txt").read_text() == "mine"


def test_a_download_that_fails_leaves_nothing_and_names_every_address(host, tmp_path):
    root = tmp_path / "data"
    urls = [host.url("/gone"), host.url("/page")]
    with refused(*urls, "404", "TPSNET_MIRROR"):
        cifar10.download(root, urls, "0" * 32)
    assert list(root.iterdir()) == []


def test_no_network_is_one_line(tmp_path):
    with refused("could not be had", "http://127.0.0.1:9/a"):
        cifar10.download(tmp_path / "data", ["http://127.0.0.1:9/a"])


def test_an_interrupted_download_leaves_nothing(host, tmp_path, monkeypatch):
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.hub, "tqdm", interrupted)  # what counts the bytes
    with pytest.raises(KeyboardInterrupt):
        cifar10.download(tmp_path / "data", [host.url("/good")])
    assert list((tmp_path / "data").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with refused("cannot be written", "file"):
        cifar10.download(tmp_path / "file" / "data", ["http://127.0.0.1:9/a"])


def test_mirrors_from_the_environment_come_first(monkeypatch):
    monkeypatch.setenv("TPSNET_MIRROR", "http://a.invalid/x http://b.invalid/y")
    assert cifar10.archive_urls()[:2] == ("http://a.invalid/x", "http://b.invalid/y")
    assert cifar10.archive_urls()[-1] == CIFAR10.url  # the slowest


def test_an_archive_from_elsewhere_is_taken_after_its_md5(archive, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "cifar-10-python.tar.gz"
    file.write_bytes(archive)
    assert cifar10.find_root(tmp_path / "data") == tmp_path / "data"
    with refused(str(file), "another MD5"):
        datasets.load_train("cifar10", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [file.name]
    assert cifar10.download(file, [], hashlib.md5(archive).hexdigest()) == tmp_path / "data"
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["cifar-10-batches-py", file.name]
    assert cifar10.find_root(file) == cifar10.find_root(tmp_path / "data") == tmp_path / "data"
    assert datasets.load_train("cifar10", file).stamp == "CIFAR-10"


# --- the real thing --------------------------------------------------------------------------------------------------

REAL = os.environ.get("TPSNET_DATA")


@pytest.mark.skipif(not REAL or cifar10.find_root(REAL) is None, reason="no CIFAR-10 in $TPSNET_DATA")
class TestOnCifar10:
    @pytest.fixture(autouse=True)
    def real_files(self, small_files, monkeypatch):
        monkeypatch.setattr(cifar10, "FILE_SIZE", 10_000)

    def test_it_has_the_published_counts_and_statistics_and_a_stratified_split(self):
        train = datasets.load_train("cifar10", REAL)
        assert train.labels.bincount().tolist() == [5_000] * 10
        mean = train.images.numpy().mean((0, 2, 3)) / 255
        assert mean.tolist() == pytest.approx(datasets.MEAN, abs=3e-4)
        for part in datasets.split("cifar10"):
            assert train.labels[part].view(-1, 10).sort(1).values.equal(torch.arange(10).expand(len(part) // 10, 10))

    def test_its_copies_are_told_apart(self):
        train, test = datasets.fingerprint("cifar10", REAL), datasets.test_fingerprint("cifar10", REAL)
        assert datasets.load_test("cifar10", REAL).labels.bincount().tolist() == [1_000] * 10
        assert train.stamp == test.stamp
        if train.stamp == "CIFAR-10 (98 inexact images)":
            assert len(cifar10.inexact_indices(REAL, "train") + cifar10.inexact_indices(REAL, "test")) == 98
