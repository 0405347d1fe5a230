"""What becomes of an image file: the right pixels, or a sentence about what is wrong."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from support.image_zoo import (
    GRADIENT,
    bad_files,
    encoded,
    put_bad_things,
    with_orientation,
)

from blockrate.core.errors import FileError
from blockrate.dataset.headers import quiet_pillow
from blockrate.engine.data.images import (
    Crop,
    ImageFacts,
    check_image,
    image_tensor,
)


def whole(path: Path, size: tuple[int, int], *, flip: bool = False) -> np.ndarray:
    """The file as bytes (H, W, 3), scaled to ``size``, nothing cut."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    pixels = image_tensor(path, sha256, Crop(size, (0, 0, *size), flip))
    assert pixels.dtype == torch.float32
    assert pixels.shape == (3, size[1], size[0])
    return ((pixels.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(int)


def written(folder: Path, content: bytes, name: str = "image.png") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def difference(pixels: np.ndarray, image: Image.Image) -> float:
    return float(np.abs(pixels - np.asarray(image.convert("RGB")).astype(int)).max())


def test_an_image_at_its_own_size_keeps_every_pixel(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(GRADIENT, "PNG"))
    assert difference(whole(path, (64, 48)), GRADIENT) == 0
    assert difference(whole(path, (64, 48), flip=True), ImageOps.mirror(GRADIENT)) == 0


def test_a_crop_is_what_scaling_and_then_cutting_gives(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(GRADIENT, "PNG"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    pixels = image_tensor(path, sha256, Crop((128, 96), (16, 8, 80, 72), False))
    expected = GRADIENT.resize((128, 96), Image.Resampling.LANCZOS).crop(
        (16, 8, 80, 72)
    )
    values = ((pixels.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(int)
    assert np.abs(values - np.asarray(expected).astype(int)).mean() < 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_every_kind_opens_whatever_its_name_says(tmp_path: Path, kind: str) -> None:
    options = {"quality": 95} if kind in ("JPEG", "WEBP", "AVIF") else {}
    path = written(tmp_path, encoded(GRADIENT, kind, **options))
    assert check_image(path, {})[1:] == (64, 48, "")
    assert np.abs(whole(path, (64, 48)) - np.asarray(GRADIENT).astype(int)).mean() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 99])
def test_orientation_is_always_applied(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    path = written(tmp_path, with_orientation(GRADIENT, kind, orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    tagged = GRADIENT.copy()
    tagged.info["exif"] = exif.tobytes()
    expected = ImageOps.exif_transpose(tagged)
    assert check_image(path, {})[1:3] == expected.size
    assert expected.size == ((48, 64) if 5 <= orientation <= 8 else (64, 48))
    assert (
        np.abs(whole(path, expected.size) - np.asarray(expected).astype(int)).mean() < 6
    )


def test_a_large_rotated_jpeg_is_the_same_when_decoded_small(tmp_path: Path) -> None:
    large = GRADIENT.resize((1600, 1200), Image.Resampling.BICUBIC)
    path = written(tmp_path, with_orientation(large, "JPEG", 6), "large.jpg")
    expected = ImageOps.exif_transpose(Image.open(path)).resize(
        (48, 64), Image.Resampling.LANCZOS
    )
    assert check_image(path, {})[1:3] == (1200, 1600)
    assert np.abs(whole(path, (48, 64)) - np.asarray(expected).astype(int)).mean() < 2


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = (np.arange(64 * 48).reshape(48, 64) * 21).astype(np.uint16)  # 0 .. 64491
    expected = np.repeat((ramp / 257).round().astype(int)[:, :, None], 3, axis=2)
    for kind in ("PNG", "TIFF"):
        path = written(tmp_path, encoded(Image.fromarray(ramp), kind))
        assert (whole(path, (64, 48)) == expected).all()
    big_endian = written(tmp_path, encoded(Image.new("I;16B", (8, 8), 60000), "TIFF"))
    assert (whole(big_endian, (8, 8)) == round(60000 / 257)).all()
    wide = written(tmp_path, encoded(Image.new("I", (8, 8), 60000), "TIFF"))
    assert (whole(wide, (8, 8)) == round(60000 / 257)).all()


def test_transparency_becomes_white_and_is_noted(tmp_path: Path) -> None:
    half = GRADIENT.convert("RGBA")
    half.putalpha(Image.new("L", half.size, 128))
    expected = Image.blend(Image.new("RGB", half.size, "white"), GRADIENT, 128 / 255)
    path = written(tmp_path, encoded(half, "PNG"))
    assert check_image(path, {})[3].startswith("with transparency")
    assert difference(whole(path, (64, 48)), expected) <= 1
    clear = {
        "RGBA": encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG"),
        "LA": encoded(Image.new("LA", (8, 8), (0, 0)), "PNG"),
        "P": encoded(Image.new("P", (8, 8), 0), "PNG", transparency=0),
        "RGB": encoded(
            Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3)
        ),
        "L": encoded(Image.new("L", (8, 8), 7), "PNG", transparency=7),
        "WEBP": encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "WEBP", lossless=True),
    }
    for mode, content in clear.items():
        path = written(tmp_path, content)
        assert check_image(path, {})[3].startswith("with transparency"), mode
        assert (whole(path, (8, 8)) == 255).all(), mode


def test_other_colour_modes_become_rgb(tmp_path: Path) -> None:
    cmyk = written(
        tmp_path, encoded(GRADIENT.convert("CMYK"), "JPEG", quality=95), "cmyk.jpg"
    )
    assert np.abs(whole(cmyk, (64, 48)) - np.asarray(GRADIENT).astype(int)).mean() < 6
    grey = written(tmp_path, encoded(GRADIENT.convert("L"), "PNG"))
    assert difference(whole(grey, (64, 48)), GRADIENT.convert("L")) == 0
    palette = written(tmp_path, encoded(GRADIENT.quantize(8), "PNG"))
    assert difference(whole(palette, (64, 48)), GRADIENT.quantize(8)) == 0
    black_and_white = written(tmp_path, encoded(GRADIENT.convert("1"), "PNG"))
    assert difference(whole(black_and_white, (64, 48)), GRADIENT.convert("1")) == 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, kind: str) -> None:
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    path = written(
        tmp_path,
        encoded(red, kind, save_all=True, append_images=[blue, blue], **lossless),
    )
    assert check_image(path, {})[3].startswith("animated")
    assert (whole(path, (16, 16))[0, 0] == (255, 0, 0)).all()


def test_a_phones_jpeg_with_a_preview_is_no_animation(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        encoded(GRADIENT, "MPO", save_all=True, append_images=[GRADIENT]),
        "phone.jpg",
    )
    assert check_image(path, {})[1:] == (64, 48, "")


def test_extreme_shapes_and_broken_colour_profiles_are_usable(tmp_path: Path) -> None:
    dot = written(tmp_path, encoded(Image.new("RGB", (1, 1), "red"), "PNG"))
    assert (whole(dot, (64, 64)) == (255, 0, 0)).all()
    thread = written(tmp_path, encoded(Image.new("RGB", (1, 5000), "red"), "PNG"))
    sha256 = hashlib.sha256(thread.read_bytes()).hexdigest()
    cut = image_tensor(
        thread, sha256, Crop((256, 1_280_000), (0, 600_000, 256, 600_256), False)
    )
    assert cut.shape == (3, 256, 256)
    profile = written(tmp_path, encoded(GRADIENT, "PNG", icc_profile=b"no profile"))
    assert difference(whole(profile, (64, 48)), GRADIENT) == 0


def test_ninety_megapixels_are_used_without_a_remark(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(Image.new("1", (9500, 9500)), "PNG"))
    with quiet_pillow():
        assert check_image(path, {})[1:3] == (9500, 9500)


def test_bad_files_are_named_with_a_reason_and_never_block(tmp_path: Path) -> None:
    with quiet_pillow():
        for name in put_bad_things(tmp_path):
            with pytest.raises(FileError) as error:
                check_image(tmp_path / name, {})
            assert error.value.where == str(tmp_path / name)
            assert "\n" not in error.value.problem
    assert set(bad_files()) <= {path.name for path in tmp_path.iterdir()}


def test_known_bytes_are_not_decoded_again(tmp_path: Path) -> None:
    path = written(tmp_path, b"not an image at all")
    digest = hashlib.sha256(b"not an image at all").hexdigest()
    facts = ImageFacts(digest, 7, 9, "")
    assert check_image(path, {digest: facts}) == facts


def test_an_image_changed_since_the_check_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(GRADIENT, "PNG"))
    sha256 = check_image(path, {})[0]
    path.write_bytes(encoded(ImageOps.mirror(GRADIENT), "PNG"))
    with pytest.raises(FileError, match="changed while the run was starting"):
        image_tensor(path, sha256, Crop((8, 8), (0, 0, 8, 8), False))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]))
    content = bytearray(
        with_orientation(GRADIENT, kind, 6)
        if kind not in ("BMP", "GIF")
        else encoded(GRADIENT, kind)
    )
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path = written(
        tmp_path_factory.mktemp("damage"),
        bytes(content[: data.draw(st.integers(0, len(content)))]),
    )
    with quiet_pillow():
        try:
            sha256, width, height, _ = check_image(path, {})
        except FileError:
            return
        assert (
            image_tensor(
                path, sha256, Crop((width, height), (0, 0, width, height), False)
            )
            .isfinite()
            .all()
        )
