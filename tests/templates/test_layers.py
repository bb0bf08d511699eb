"""Which fragments make a file: layers, order, and what switches what off."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.paths import Paths
from smeconf.templates import Layers, Metadata, TargetError, layers

TARGET = "etc/motd"


class Shelf:
    """Layers of one test: ``shipped``, and above it ``custom``, in directories."""

    def __init__(self, root: Path) -> None:
        self.shipped = root / "shipped"
        self.custom = root / "etc/smeconf/templates-custom"
        self.put("shipped", "../template-begin", "# banner\n")
        self.layers = Layers(Paths(str(root)))

    def put(
        self, layer: str, name: str, text: str = "x\n", target: str = TARGET
    ) -> Path:
        path = (getattr(self, layer) / target / name).resolve()
        if name.startswith("../"):
            path = self.shipped / name[3:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def file(self, layer: str, text: str = "x\n") -> None:
        path = getattr(self, layer) / TARGET
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def names(self, target: str = TARGET) -> list[str]:
        return [one.name for one in self.layers.fragments(target)]

    def text(self, target: str = TARGET) -> str:
        fragments = self.layers.fragments(target)
        return "".join(Path(one.path).read_text() for one in fragments)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr(layers, "shipped", lambda tree: str(tmp_path / "shipped"))
    return Shelf(tmp_path)


def test_fragments_stand_in_byte_order_begin_and_end_pinned(shelf: Shelf) -> None:
    names = ["zz", "10A", "10a", "100x", "5x", "template-end", "é", "template-begin"]
    for name in [*names, ".hidden", "~"]:
        shelf.put("shipped", name)

    assert shelf.names() == [
        *("template-begin", ".hidden", "100x", "10A", "10a", "5x", "zz", "é"),
        "template-end",
    ]


def test_banner_stands_in_front_where_a_template_has_none(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "text\n")

    assert shelf.text() == "# banner\ntext\n"


def test_empty_begin_means_no_banner(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "text\n")
    shelf.put("custom", "template-begin", "")

    assert shelf.text() == "text\n"


def test_fragment_of_the_site_replaces_the_one_of_its_name(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "shipped 10\n")
    shelf.put("shipped", "20", "shipped 20\n")
    shelf.put("custom", "20", "custom 20\n")
    shelf.put("custom", "15", "custom 15\n")

    assert shelf.text() == "# banner\nshipped 10\ncustom 15\ncustom 20\n"


def test_empty_fragment_switches_a_shipped_one_off(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "shipped 10\n")
    shelf.put("shipped", "20", "shipped 20\n")
    shelf.put("custom", "10", "")

    assert shelf.names() == ["template-begin", "20"]


def test_file_of_the_site_replaces_a_whole_directory(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "shipped 10\n")
    shelf.file("custom", "all of it\n")

    assert shelf.text() == "all of it\n"


def test_directory_of_the_site_replaces_a_file(shelf: Shelf) -> None:
    shelf.file("shipped", "all of it\n")
    shelf.put("custom", "10", "custom 10\n")

    assert shelf.text() == "# banner\ncustom 10\n"


def test_further_layer_lies_above_all(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("shipped", "10", "shipped\n")
    shelf.put("custom", "10", "custom\n")
    extra = tmp_path / "extra" / TARGET
    extra.mkdir(parents=True)
    (extra / "10").write_text("extra\n")

    found = Layers(Paths(str(tmp_path)), [str(tmp_path / "extra")]).fragments(TARGET)

    assert [Path(one.path).read_text() for one in found] == ["# banner\n", "extra\n"]


@pytest.mark.parametrize(
    "name",
    ["10~", "10.swp", "10.orig", "10.rpmsave", "10.rpmnew", "10.rpmorig"],
)
def test_what_editors_leave_behind_is_no_fragment(shelf: Shelf, name: str) -> None:
    shelf.put("shipped", "10")
    shelf.put("custom", name)

    assert shelf.names() == ["template-begin", "10"]


def test_directories_and_metadata_are_no_fragments(shelf: Shelf) -> None:
    shelf.put("shipped", "10")
    shelf.put("shipped", "20below/10")
    shelf.put("shipped", "metadata.toml", "")

    assert shelf.names() == ["template-begin", "10"]


def test_symlinked_fragment_counts(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "text\n")
    (shelf.shipped / TARGET / "20").symlink_to("10")
    (shelf.shipped / TARGET / "30").symlink_to("missing")

    assert shelf.names() == ["template-begin", "10", "20"]


def test_target_without_a_template_is_an_error(shelf: Shelf) -> None:
    with pytest.raises(TargetError, match=r"^/etc/none: no template was found$"):
        shelf.layers.fragments("/etc/none")


def test_template_of_another_target_lies_below_the_own_fragments(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "base 10\n", "base")
    shelf.put("shipped", "20", "base 20\n", "base")
    shelf.put("custom", "30", "custom base 30\n", "base")
    shelf.put("shipped", "metadata.toml", 'template = "base"')
    shelf.put("shipped", "20", "")
    shelf.put("custom", "25", "own 25\n")

    assert shelf.text() == "# banner\nbase 10\nown 25\ncustom base 30\n"
    assert shelf.text("base") == "# banner\nbase 10\nbase 20\ncustom base 30\n"


def test_templates_that_stand_on_each_other_are_an_error(shelf: Shelf) -> None:
    shelf.put("shipped", "metadata.toml", 'template = "base"')
    shelf.put("shipped", "metadata.toml", f'template = "{TARGET}"', "base")

    with pytest.raises(TargetError, match=r"^/etc/motd: .*template"):
        shelf.layers.fragments(TARGET)


def test_metadata_is_merged_over_the_layers(shelf: Shelf) -> None:
    shelf.put("shipped", "metadata.toml", 'owner = "mail"\nmode = "0640"')
    shelf.put("custom", "metadata.toml", 'mode = "0600"\ngroup = "adm"')

    assert shelf.layers.metadata(TARGET) == Metadata("mail", "adm", 0o600, "")
    assert shelf.layers.metadata("etc/other") == Metadata("root", "root", 0o644, "")


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("mode = 640", 'mode is octal in quotes, such as "0640"'),
        ('mode = "rw"', 'mode is octal in quotes, such as "0640"'),
        ('mode = "0999"', 'mode is octal in quotes, such as "0640"'),
        ("owner = 0", "owner = 0 is not understood"),
        ('perms = "0640"', "perms = '0640' is not understood"),
        ("owner = ", "Invalid value"),
    ],
)
def test_metadata_at_fault_is_named_with_its_file(
    shelf: Shelf, toml: str, reason: str
) -> None:
    path = shelf.put("custom", "metadata.toml", toml)

    with pytest.raises(TargetError) as caught:
        shelf.layers.metadata(TARGET)

    assert str(caught.value).startswith(f"{path}: {reason}")


def test_check_stands_in_a_directory_above_the_nearest_counts(shelf: Shelf) -> None:
    shelf.put("shipped", "metadata.toml", 'check_directory = ["far"]', "etc")
    assert shelf.layers.directory_check("/etc/deep/motd") == ("etc", ["far"])

    shelf.put("custom", "metadata.toml", 'check_directory = ["near", "{}"]', "etc/deep")

    found = shelf.layers.directory_check("etc/deep/motd")
    assert found == ("etc/deep", ["near", "{}"])
    assert shelf.layers.directory_check("var/none") is None


def test_check_that_is_no_list_of_words_is_an_error(shelf: Shelf) -> None:
    shelf.put("shipped", "metadata.toml", 'check_directory = "true {}"', "etc")

    with pytest.raises(TargetError, match="check_directory is a list of words"):
        shelf.layers.directory_check(TARGET)
