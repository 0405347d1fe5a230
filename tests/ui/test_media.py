"""What may be seen of this machine's disk, and in which form."""

import io
import os
import threading
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from blockrate.config.presets import read
from blockrate.core.errors import ConfigError
from blockrate.ui.app import default_roots
from blockrate.ui.media import Media, Picture

ROOT = Path(__file__).resolve().parents[2]
CANARY = b"canary-4711"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root beside a folder that is nobody's business."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_bytes(CANARY)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "outside" / "secret.png")
    (tmp_path / "root" / "photos").mkdir(parents=True)
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "root" / "photos" / "a.png")
    return tmp_path / "root"


@pytest.fixture
def media(root: Path) -> Media:
    return Media([root])


def link(place: Path, target: Path) -> Path:
    try:
        place.symlink_to(target, target_is_directory=target.is_dir())
    except OSError as error:
        pytest.skip(f"this system makes no links: {error}")
    return place


def picture_of(media: Media, path: Path, *, size: int | None = None) -> Picture | None:
    return media.picture(media.file_url(path, size=size).removeprefix("/files/"))


def decoded(picture: Picture | None) -> Image.Image:
    assert picture
    return Image.open(io.BytesIO(picture[0]))


# -- which folders -----------------------------------------------------------------------------------------------------


def test_the_photographs_of_the_examples_are_seen_wherever_the_app_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setattr(Path, "home", lambda: home)
    for folder in (tmp_path, ROOT):
        monkeypatch.chdir(folder)
        photo = read("demo")["concepts"][0]["path"]
        assert Media(default_roots()).resolve_inside(photo) == ROOT / photo
    assert default_roots() == [ROOT, home]
    monkeypatch.chdir(tmp_path)
    assert default_roots() == [tmp_path, home, ROOT / "examples"]
    monkeypatch.chdir("/")
    assert default_roots()[0] == home


# -- which paths -------------------------------------------------------------------------------------------------------


def test_paths_inside_a_root_are_seen(
    media: Media, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    for path in (
        root,
        root / "photos" / "a.png",
        "photos/../photos/a.png",
        "photos/new/file.json",
        "./photos/",
    ):
        assert media.resolve_inside(path) == Path(os.path.realpath(path))


OUTSIDE = [
    *(
        "..",
        "../",
        "../outside",
        "../outside/secret.txt",
        "photos/../../outside/secret.txt",
        "photos/../..",
        "./..",
    ),
    *(
        "../root2",
        "../rootless/secret.txt",
        "/",
        "//",
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/cwd/../outside",
    ),
    *(
        "/dev/zero",
        "/dev/stdin",
        "~root",
        "~nobody/x",
        "~",
        "~/secret.txt",
        "a\0b",
        "\0",
        "/etc/passwd\0.png",
    ),
    *(
        "../" * 50 + "etc/passwd",
        "photos/" + "../" * 50 + "etc/shadow",
        "/../../etc/passwd",
        "/./etc/passwd",
    ),
    *(
        ".ssh",
        ".ssh/id_rsa",
        "photos/.hidden",
        "photos/.hidden/a.png",
        ".git/config",
        "photos/../.env",
        "./.env",
    ),
    *(
        "photos/.../..../../../../../outside",
        "....//../../outside",
        ".bash_history",
        ".cache/x/y.png",
    ),
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_outside_or_hidden_are_not_seen(
    media: Media, root: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(root.parent))
    for ask in (media.resolve_inside, media.file_url, media.listing):
        with pytest.raises(ConfigError, match=r"is hidden or outside|is not a path"):
            ask(path)


def test_a_root_named_like_the_start_of_another_folder_does_not_open_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos-of-others").mkdir()
    with pytest.raises(ConfigError):
        Media([tmp_path / "photos"]).resolve_inside(tmp_path / "photos-of-others")


def test_a_link_that_leads_out_is_not_followed(media: Media, root: Path) -> None:
    outside = root.parent / "outside"
    for name, target in {
        "file.txt": outside / "secret.txt",
        "folder": outside,
        "far": Path("/"),
    }.items():
        place = link(root / name, target)
        for ask in (media.resolve_inside, media.file_url, media.listing):
            with pytest.raises(ConfigError, match="is hidden or outside"):
                ask(place)
    link(root / "one", root / "two")
    link(root / "two", root / "one")
    assert {entry.name for entry in media.listing(root)} <= {"photos", "one", "two"}
    assert picture_of(media, root / "one") is None


def test_a_link_within_the_roots_is_followed(media: Media, root: Path) -> None:
    link(root / "same.png", root / "photos" / "a.png")
    assert media.resolve_inside(root / "same.png") == root / "photos" / "a.png"
    assert decoded(picture_of(media, root / "same.png")).getpixel((0, 0)) == (0, 0, 255)


def test_a_link_to_what_is_hidden_is_not_followed(media: Media, root: Path) -> None:
    (root / ".keys").mkdir()
    with pytest.raises(ConfigError, match="is hidden"):
        media.resolve_inside(link(root / "keys", root / ".keys"))


def test_a_hidden_root_is_seen_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / ".scratch" / "photos").mkdir(parents=True)
    assert Media([tmp_path, tmp_path / ".scratch"]).resolve_inside(
        tmp_path / ".scratch" / "photos"
    )


def test_a_folder_is_listed_folders_first_and_nothing_hidden(
    media: Media, root: Path
) -> None:
    for name in ("b.txt", "A.png", ".env"):
        (root / name).touch()
    for name in ("z", ".git"):
        (root / name).mkdir()
    assert [entry.name for entry in media.listing(root)] == [
        "photos",
        "z",
        "A.png",
        "b.txt",
    ]
    for wrong in (root / "b.txt", root / "absent"):
        with pytest.raises(ConfigError, match="cannot be read"):
            media.listing(wrong)


# -- ids ---------------------------------------------------------------------------------------------------------------


def test_an_id_tells_nothing_and_stays_the_same(media: Media, root: Path) -> None:
    file = root / "photos" / "a.png"
    first = media.file_url(file)
    small = media.file_url(file, size=64)
    assert media.file_url(str(file)) == first != small
    assert "a.png" not in first
    assert len(first.removeprefix("/files/")) >= 22
    assert Media([root]).file_url(file) != first


def test_only_ids_that_were_given_out_are_known(media: Media, root: Path) -> None:
    known = media.file_url(root / "photos" / "a.png").removeprefix("/files/")
    assert media.picture(known)
    for name in (
        "",
        "a.png",
        known[:-1],
        known + "x",
        known.lower() + "-",
        str(root / "photos" / "a.png"),
        "../x",
    ):
        assert media.picture(name) is None


def test_only_safetensors_files_inside_are_given_out_whole(
    media: Media, root: Path, tmp_path: Path
) -> None:
    inside = root / "dog.safetensors"
    outside = tmp_path / "dog.safetensors"
    for file in (inside, outside, root / ".dog.safetensors"):
        file.write_bytes(b"weights")
    name = media.download_url(inside).removeprefix("/files/")
    assert media.download(name) == inside
    assert media.picture(name) is None
    assert media.download(media.file_url(inside).removeprefix("/files/")) is None
    for refused in (
        outside,
        root / ".dog.safetensors",
        root / "photos" / "a.png",
        root / "photos",
        root / "no",
    ):
        with pytest.raises(ConfigError):
            media.download_url(refused)
    with pytest.raises(OSError, match="too long"):
        # the Run tab takes it for a file that is not to be had
        media.download_url(root / f"{'a' * 300}.safetensors")
    inside.unlink()
    assert media.download(name) is None
    inside.symlink_to(outside)
    assert media.download(name) is None


def test_the_table_of_ids_is_bounded(
    media: Media, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockrate.ui.media._FILES", 10)
    addresses = [
        media.file_url(root / "photos" / "a.png", size=size) for size in range(1, 31)
    ]
    known = [
        media.picture(address.removeprefix("/files/")) is not None
        for address in addresses
    ]
    assert known == [False] * 20 + [True] * 10
    assert len(media._given_out) == len(media._ids) == 10


def test_a_folder_that_becomes_a_link_out_is_not_followed(
    media: Media, root: Path
) -> None:
    (root / "swap").mkdir()
    Image.new("RGB", (8, 8)).save(root / "swap" / "secret.png")
    address = media.file_url(root / "swap" / "secret.png")
    (root / "swap").rename(root / "before")
    link(root / "swap", root.parent / "outside")
    assert media.picture(address.removeprefix("/files/")) is None


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_a_picture_is_encoded_anew_and_says_nothing_of_where_it_was_taken(
    media: Media, root: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 0.0)  # GPSLatitude
    exif[0x010E] = CANARY.decode()
    photo = Image.new("RGB", (64, 32), "white")
    ImageDraw.Draw(photo).rectangle((0, 0, 31, 31), "black")
    photo.save(root / "photo.jpg", exif=exif, comment=CANARY, icc_profile=CANARY)
    (root / "photo.jpg").write_bytes(
        (root / "photo.jpg").read_bytes() + b"<script>" + CANARY
    )
    for size, shape, kind in (
        (None, (32, 64), "image/png"),
        (16, (8, 16), "image/jpeg"),
        (999, (32, 64), "image/jpeg"),
    ):
        picture = picture_of(media, root / "photo.jpg", size=size)
        assert picture
        assert picture[1] == kind
        assert CANARY not in picture[0]
        image = decoded(picture)
        assert image.size == shape
        assert not image.getexif()
        grey = image.convert("L").tobytes()
        assert grey[0] < 64
        assert grey[-image.width] > 192


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "CMYK", "F"])
@pytest.mark.parametrize("size", [None, 8])
def test_every_mode_is_shown(
    media: Media, root: Path, mode: str, size: int | None
) -> None:
    name = root / ("x.tiff" if mode in ("CMYK", "F") else "x.png")
    Image.new(mode, (16, 8)).save(name)
    image = decoded(picture_of(media, name, size=size))
    assert image.size == ((8, 4) if size else (16, 8))
    assert image.mode in ("RGB", "RGBA")


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_are_scaled_and_not_clipped(
    media: Media, root: Path, mode: str
) -> None:
    Image.new(mode, (8, 8), 32768).save(root / "x.tiff")
    assert decoded(picture_of(media, root / "x.tiff")).getpixel(
        (0, 0)
    ) == pytest.approx((128,) * 3, abs=1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        CANARY,
        b"\x89PNG\r\n\x1a\n" + CANARY,
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"<html><script>alert(1)</script></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
        b"8BPS" + bytes(60),
        b"P6 1 1 255\n\xff\0\0",
    ],
    ids=[
        "empty",
        "text",
        "broken",
        "svg",
        "html",
        "eps",
        "psd",
        "a format that few test",
    ],
)
def test_what_is_no_picture_is_not_sent(
    media: Media, root: Path, content: bytes
) -> None:
    (root / "x.png").write_bytes(content)
    assert picture_of(media, root / "x.png") is None
    assert picture_of(media, root / "x.png", size=64) is None
    assert picture_of(media, root / "photos") is None
    assert picture_of(media, root / "absent.png") is None


def test_a_picture_too_large_to_hold_is_not_opened(
    media: Media, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10_000)
    Image.new("1", (200, 200)).save(root / "bomb.png")
    assert picture_of(media, root / "bomb.png", size=64) is None


def test_an_edited_picture_is_shown_anew(media: Media, root: Path) -> None:
    file = root / "photos" / "a.png"
    before = picture_of(media, file, size=64)
    Image.new("RGB", (8, 8), "green").save(file)
    os.utime(file, ns=(1, 1))
    assert picture_of(media, file, size=64) != before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_a_pipe_is_not_waited_for(media: Media, root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    address = media.file_url(root / "pipe.png")
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(media.picture(address.removeprefix("/files/"))),
        daemon=True,
    )
    thread.start()
    thread.join(30)
    assert answers == [None]
