"""Which fragments make a file: layers, order, and what switches what off."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smeconf.paths import Paths, shipped
from smeconf.templates import Directory, Layers, Metadata, TargetError, layers

TARGET = "etc/motd"


class Shelf:
    """Layers of one test: ``shipped``, and above it ``custom``, in directories."""

    def __init__(self, root: Path) -> None:
        self.shipped = root / "shipped"
        self.custom = root / "etc/smeconf/templates-custom"
        self.put("shipped", "../template-begin", "# banner\n")
        self.paths = Paths(str(root))
        self.layers = Layers(self.paths)

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
        return [one.name for one in Layers(self.paths).fragments(target)]

    def text(self, target: str = TARGET) -> str:
        fragments = Layers(self.paths).fragments(target)
        return "".join(Path(one.path).read_text() for one in fragments)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr(layers, "shipped", lambda tree: str(tmp_path / "shipped"))
    return Shelf(tmp_path)


def test_fragments_stand_in_byte_order_begin_and_end_pinned(shelf: Shelf) -> None:
    names = ["zz", "10A", "10a", "100x", "5x", "template-end", "é", "template-begin"]
    for name in [*names, "a", "B", ".hidden", "~"]:
        shelf.put("shipped", name)

    assert shelf.names() == [
        *("template-begin", ".hidden", "100x", "10A", "10a", "5x", "B", "a", "zz"),
        "é",
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


def test_each_layer_counts_upon_what_lies_below_it(
    shelf: Shelf, tmp_path: Path
) -> None:
    """A directory, a file, a directory, a directory."""
    shelf.put("shipped", "10", "shipped 10\n")
    shelf.file("custom", "all of it\n")
    extra = [tmp_path / "one", tmp_path / "two"]
    for place, name in zip(extra, ("20", "30"), strict=True):
        (place / TARGET).mkdir(parents=True)
        (place / TARGET / name).write_text(f"{place.name} {name}\n")

    found = Layers(shelf.paths, list(map(str, extra))).fragments(TARGET)

    assert "".join(Path(one.path).read_text() for one in found) == (
        "# banner\none 20\ntwo 30\n"
    )


def test_directory_that_holds_metadata_alone_leaves_the_file_below(
    shelf: Shelf,
) -> None:
    shelf.file("shipped", "all of it\n")
    shelf.put("custom", "metadata.toml", 'mode = "0600"')

    assert shelf.text() == "all of it\n"
    assert shelf.layers.metadata(TARGET).mode == 0o600


def test_template_of_empty_fragments_makes_nothing_but_the_banner(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "")

    assert shelf.names() == ["template-begin"]


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
def test_what_editors_leave_behind_is_skipped_and_said_once(
    shelf: Shelf, name: str
) -> None:
    shelf.put("shipped", "10")
    path = shelf.put("custom", name)

    for _ in range(2):
        assert [one.name for one in shelf.layers.fragments(TARGET)] == [
            *("template-begin", "10")
        ]

    said = f"{path}: left behind by an editor or a package, skipped"
    assert shelf.layers.warnings == [said]


def test_directory_with_the_name_of_a_left_behind_file_is_not_mentioned(
    shelf: Shelf,
) -> None:
    shelf.put("shipped", "10")
    shelf.put("shipped", "20~/10")

    assert shelf.names() == ["template-begin", "10"]
    assert shelf.layers.warnings == []


@pytest.mark.parametrize("name", [".10", "#10#", "10.bak", "10.1", "10.rpmsave.txt"])
def test_other_names_are_fragments(shelf: Shelf, name: str) -> None:
    shelf.put("shipped", name)

    assert shelf.names() == ["template-begin", name]


def test_directories_and_metadata_are_no_fragments(shelf: Shelf) -> None:
    shelf.put("shipped", "10")
    shelf.put("shipped", "20below/10")
    shelf.put("shipped", "metadata.toml", "")

    assert shelf.names() == ["template-begin", "10"]


def test_symlinked_fragment_counts(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "text\n")
    (shelf.shipped / TARGET / "20").symlink_to("10")

    assert shelf.names() == ["template-begin", "10", "20"]


def dangling(path: Path) -> str:
    path.symlink_to("nowhere")
    return "is a symlink to nowhere, which is not there: mend or remove it"


def ring(path: Path) -> str:
    path.symlink_to(path.name)
    return "cannot be read: Too many levels of symbolic links"


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return "is no file, and no fragment: remove it"


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Break off what waits for ever."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("make", [dangling, ring, pipe])
def test_fragment_that_cannot_be_read_is_named(
    shelf: Shelf, make: Callable[[Path], str]
) -> None:
    shelf.put("shipped", "10")
    path = shelf.shipped / TARGET / "20"
    reason = make(path)

    with time_limit(10), pytest.raises(TargetError) as caught:
        shelf.names()

    assert str(caught.value) == f"{path}: {reason}"


def test_fragment_that_may_not_be_read_is_named(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shelf.put("shipped", "10")
    allowed = os.open

    def refuse(name: str, flags: int, mode: int = 0o777) -> int:
        if name == str(path):
            raise PermissionError(13, "Permission denied", name)
        return allowed(name, flags, mode)

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(
        TargetError, match=f"^{path}: cannot be read: Permission denied"
    ):
        shelf.names()


def test_broken_fragment_that_a_higher_layer_replaces_is_no_matter(
    shelf: Shelf,
) -> None:
    shelf.put("shipped", "10")
    dangling(shelf.shipped / TARGET / "20")
    shelf.put("custom", "20")

    assert shelf.names() == ["template-begin", "10", "20"]


@pytest.mark.parametrize("make", [dangling, ring])
def test_template_of_a_layer_that_cannot_be_read_is_named(
    shelf: Shelf, make: Callable[[Path], str]
) -> None:
    shelf.put("shipped", "10")
    path = shelf.custom / TARGET
    path.parent.mkdir(parents=True)
    reason = make(path)

    with pytest.raises(TargetError) as caught:
        shelf.names()

    assert str(caught.value) == f"{path}: {reason}"


@pytest.mark.parametrize("path", ["/etc/../etc/motd", "..", "", "/", "etc/a\0b"])
def test_target_that_would_leave_the_root_is_refused(shelf: Shelf, path: str) -> None:
    for ask in (
        *(shelf.layers.fragments, shelf.layers.metadata, shelf.layers.directory_of),
    ):
        with pytest.raises(TargetError, match="is no path below the root: name a file"):
            ask(path)


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

    with pytest.raises(
        TargetError, match=r"template: /etc/motd would stand on itself$"
    ):
        shelf.layers.fragments(TARGET)


def test_metadata_is_merged_over_the_layers(shelf: Shelf) -> None:
    shelf.put("shipped", "metadata.toml", 'owner = "mail"\nmode = "0640"')
    shelf.put("custom", "metadata.toml", 'mode = "0600"\ngroup = "adm"')

    assert shelf.layers.metadata(TARGET) == Metadata("mail", "adm", 0o600, "")
    assert shelf.layers.metadata("etc/other") == Metadata("root", "root", 0o644, "")


def test_metadata_that_leads_nowhere_is_named(shelf: Shelf) -> None:
    path = shelf.put("shipped", "10").with_name("metadata.toml")
    path.symlink_to("nowhere")

    with pytest.raises(TargetError, match=f"^{path}: No such file or directory$"):
        shelf.layers.metadata(TARGET)


def test_nearest_directory_above_with_a_check_counts(shelf: Shelf) -> None:
    shelf.put("shipped", "metadata.toml", 'check_directory = ["far"]', "etc")
    assert shelf.layers.directory_of("/etc/deep/motd") == Directory(
        "etc", ("far",), False
    )

    toml = 'check_directory = ["near", "{}"]\ngeneration = true'
    shelf.put("custom", "metadata.toml", toml, "etc/deep")

    found = Layers(shelf.paths).directory_of("etc/deep/motd")
    assert found == Directory("etc/deep", ("near", "{}"), True)
    assert shelf.layers.directory_of("var/none") is None
    assert shelf.layers.directory_of("motd") is None


def test_site_changes_one_key_of_a_directory(shelf: Shelf) -> None:
    toml = 'check_directory = ["true", "{}"]\ngeneration = true'
    shelf.put("shipped", "metadata.toml", toml, "etc")
    shelf.put("custom", "metadata.toml", 'check_directory = ["mine"]', "etc")

    assert shelf.layers.directory_of(TARGET) == Directory("etc", ("mine",), True)


def test_site_switches_the_check_of_a_directory_off(shelf: Shelf) -> None:
    shelf.put("shipped", "metadata.toml", 'check_directory = ["true", "{}"]', "etc")
    shelf.put("custom", "metadata.toml", "check_directory = []", "etc")

    assert shelf.layers.directory_of(TARGET) is None


# Banners


STYLES = {
    "": ("# Generated", ""),
    "ini": ("; Generated", ""),
    "html": ("<!--\nGenerated", "-->\n"),
    "pam": ("#%PAM-1.0\n# Generated", ""),
    "perl": ("#!/usr/bin/perl -w\n# Generated", ""),
    "php": ("<?php\n// Generated", ""),
    "shell": ("#!/bin/sh\n# Generated", ""),
}


@pytest.mark.parametrize("style", STYLES)
def test_shipped_banner_stands_in_its_comments(style: str, tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    place = tmp_path / "etc/smeconf/templates-custom" / TARGET
    place.mkdir(parents=True)
    (place / "10").write_text("text\n")
    (place / "metadata.toml").write_text(f'comment = "{style}"')
    plain = Path(shipped("templates"), "template-begin").read_text()

    found = Layers(paths).fragments(TARGET)

    text = Path(found[0].path).read_text()
    begin, end = STYLES[style]
    assert text.startswith(begin)
    assert text.endswith(end)
    assert words_of(text[len(begin) - len("Generated") :]) == words_of(plain)
    names = [one.name for one in found]
    assert names[:2] == ["template-begin", "10"]
    if style == "php":
        assert Path(found[2].path).read_text() == "?>\n"
    else:
        assert len(names) == 2


def words_of(banner: str) -> list[str]:
    marks = ("#", ";", "//", "<!--", "-->")
    return [word for word in banner.split() if word not in marks]


def test_style_none_means_no_banner(shelf: Shelf) -> None:
    shelf.put("shipped", "10", "text\n")
    shelf.put("custom", "metadata.toml", 'comment = "none"')

    assert shelf.text() == "text\n"


def test_own_begin_counts_more_than_a_style(shelf: Shelf) -> None:
    shelf.put("shipped", "../template-begin-php", "<?php\n")
    shelf.put("shipped", "../template-end-php", "?>\n")
    shelf.put("shipped", "10", "text\n")
    shelf.put("shipped", "template-begin", "own\n")
    shelf.put("shipped", "metadata.toml", 'comment = "php"')

    assert shelf.text() == "own\ntext\n"


def test_own_end_counts_more_than_that_of_a_style(shelf: Shelf) -> None:
    shelf.put("shipped", "../template-begin-php", "<?php\n")
    shelf.put("shipped", "../template-end-php", "?>\n")
    shelf.put("shipped", "10", "text\n")
    shelf.put("shipped", "template-end", "")
    shelf.put("shipped", "metadata.toml", 'comment = "php"')

    assert shelf.text() == "<?php\ntext\n"


def test_symlinked_begin_selects_a_style(shelf: Shelf) -> None:
    shelf.put("shipped", "../template-begin-ini", "; banner\n")
    path = shelf.put("shipped", "10", "text\n")
    path.with_name("template-begin").symlink_to("../../template-begin-ini")

    assert shelf.text() == "; banner\ntext\n"


def test_site_replaces_a_default_banner(shelf: Shelf) -> None:
    shelf.put("shipped", "../template-begin-ini", "; banner\n")
    shelf.put("shipped", "10", "text\n")
    shelf.put("shipped", "metadata.toml", 'comment = "ini"')
    (shelf.custom / "template-begin-ini").parent.mkdir(parents=True)
    (shelf.custom / "template-begin-ini").write_text("; ours\n")

    assert shelf.text() == "; ours\ntext\n"


def test_template_takes_the_style_of_what_it_stands_on(shelf: Shelf) -> None:
    shelf.put("shipped", "../template-begin-ini", "; banner\n")
    shelf.put("shipped", "10", "text\n", "base")
    shelf.put("shipped", "metadata.toml", 'comment = "ini"', "base")
    shelf.put("shipped", "metadata.toml", 'template = "base"')

    assert shelf.text() == "; banner\ntext\n"

    shelf.put("custom", "metadata.toml", 'comment = ""')
    assert shelf.text() == "# banner\ntext\n"


def test_style_that_is_not_there_offers_the_nearest(shelf: Shelf) -> None:
    shelf.put("shipped", "../template-begin-shell", "#!/bin/sh\n")
    shelf.put("shipped", "10", "text\n")
    path = shelf.put("custom", "metadata.toml", 'comment = "shel"')

    with pytest.raises(TargetError) as caught:
        shelf.names()

    assert str(caught.value) == (
        f"{path}: comment: there is no template-begin-shel; did you mean shell?"
    )


# Queues


def test_queue_takes_the_place_of_the_standard_layers(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.put("shipped", "10", "shipped\n")
    shelf.put("custom", "20", "custom\n")
    toml = 'queue = ["templates-user", "templates-user-custom"]\nmode = "0600"'
    shelf.put("shipped", "metadata.toml", toml)
    site = shelf.custom.parent
    for name, fragment in (
        *(("templates-user", "10"), ("templates-user", "30")),
        *(("templates-user-custom", "30"), ("extra", "40")),
    ):
        path = site / name / TARGET / fragment
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} {fragment}\n")

    assert shelf.text() == ("# banner\ntemplates-user 10\ntemplates-user-custom 30\n")
    assert shelf.layers.metadata(TARGET).mode == 0o600
    further = Layers(shelf.paths, [str(site / "extra")])
    assert further.fragments(TARGET)[-1].name == "40"


# All of it against the rules, told plainly


names_in_a_layer = st.sampled_from(
    (
        *("10", "10a", "10A", "5x", "100x", ".10", "Z", "a", "é", "10~", "10.swp"),
        *("template-begin", "template-end"),
    )
)
a_layer = st.one_of(
    st.none(),
    st.sampled_from(["", "whole\n"]),
    st.dictionaries(names_in_a_layer, st.sampled_from(["", "a\n", "b\n"]), max_size=6),
)
LayerModel = None | str | Mapping[str, str]


def told_plainly(stack: Sequence[LayerModel]) -> str | None:
    """Return the text that layers make, the lowest first; None: no template."""
    parts: dict[str, str] = {}
    last: LayerModel = None
    for layer in stack:
        if layer is None:
            continue
        if isinstance(layer, str):
            parts = {"whole": layer}
        else:
            if isinstance(last, str):
                parts = {}
            for name, text in layer.items():
                if not name.endswith(("~", ".swp")):
                    parts[name] = text
        last = layer
    if not parts:
        return None
    if not isinstance(last, str):
        parts = {"template-begin": "# banner\n", **parts}
    place = {"template-begin": 0, "template-end": 2}
    order = sorted(parts, key=lambda name: (place.get(name, 1), name.encode()))
    return "".join(parts[name] for name in order)


@settings(max_examples=150, deadline=None)
@given(stack=st.lists(a_layer, min_size=3, max_size=3))
def test_fragments_are_merged_and_ordered_by_the_rules(
    stack: list[LayerModel],
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        root = Path(folder)
        monkeypatch.setattr(layers, "shipped", lambda tree: str(root / "shipped"))
        shelf = Shelf(root)
        for place, layer in zip(
            (shelf.shipped, shelf.custom, root / "extra"), stack, strict=True
        ):
            build(place / TARGET, layer)

        found: str | None
        try:
            fragments = Layers(shelf.paths, [str(root / "extra")]).fragments(TARGET)
            found = "".join(Path(one.path).read_text() for one in fragments)
        except TargetError:
            found = None

    assert found == told_plainly(stack)


def build(place: Path, layer: LayerModel) -> None:
    if layer is None:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(layer, str):
        place.write_text(layer)
        return
    place.mkdir()
    for name, text in layer.items():
        (place / name).write_text(text)
