"""What is a frame and what is not: every kind of image, and of what is none, has its stated outcome."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from detector.arrays import U8
from detector.config.settings import LimitsConfig
from detector.wire.images import MAX_SCANS, PixelBudget, RawForm, Refused, decode
from tests.pictures import bomb, grey, image_bytes, jpeg, png, smooth

SHAPE = (28, 28)
LIMITS = LimitsConfig()


def as_frame(pixels: U8) -> bytes:
    return (pixels.astype(np.float32) / np.float32(255)).tobytes()


def refusal(value: bytes, raw: RawForm | None = None, limits: LimitsConfig = LIMITS) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        decode(value, SHAPE, limits, raw)
    return refused.value.reason, refused.value.message


# -- accepted ------------------------------------------------------------------------------------------------------


def test_a_grey_png_comes_out_as_it_is() -> None:
    frame, resized = decode(png(grey()), SHAPE, LIMITS)
    assert (frame.dtype.name, frame.shape, resized) == ("float32", SHAPE, False)
    assert frame.tobytes() == as_frame(grey())


def test_a_jpeg_is_near_what_it_was() -> None:
    frame, resized = decode(jpeg(smooth()), SHAPE, LIMITS)
    assert np.abs(frame - smooth() / 255).max() < 0.03
    assert not resized


def test_a_colour_image_becomes_grey() -> None:
    colours = np.stack([grey(1), grey(2), grey(3)], axis=2)
    expected = colours @ np.array([0.299, 0.587, 0.114]) / 255
    frame, _ = decode(png(colours), SHAPE, LIMITS)
    assert np.abs(frame - expected).max() < 1 / 255
    soft = np.stack([smooth(), smooth()[::-1], smooth()], axis=2)
    frame, _ = decode(jpeg(soft, subsampling=0), SHAPE, LIMITS)
    assert np.abs(frame - soft @ np.array([0.299, 0.587, 0.114]) / 255).max() < 0.05


def test_sixteen_bits_keep_their_depth() -> None:
    deep = (np.arange(784, dtype=np.uint32) * 83).astype(np.uint16).reshape(SHAPE)
    frame, _ = decode(png(deep), SHAPE, LIMITS)
    assert np.array_equal(frame, deep.astype(np.float32) / np.float32(65535))
    assert len(np.unique(frame)) == 784, "8 bits would leave 256"


def test_a_palette_is_looked_up() -> None:
    image = Image.fromarray(grey()).convert("P")
    assert image.mode == "P"
    frame, _ = decode(image_bytes(image), SHAPE, LIMITS)
    assert frame.tobytes() == as_frame(grey())


def test_a_bit_a_pixel() -> None:
    image = Image.fromarray((grey() > 127).astype(np.uint8) * 255).convert("1")
    frame, _ = decode(image_bytes(image), SHAPE, LIMITS)
    assert np.array_equal(frame, (grey() > 127).astype(np.float32))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_lies_on_black(mode: str) -> None:
    image = Image.new(mode, (28, 28), (200,) * (len(mode) - 1) + (0,))
    image.paste(Image.new(mode, (14, 28), (200,) * (len(mode) - 1) + (255,)), (0, 0))
    frame, _ = decode(image_bytes(image), SHAPE, LIMITS)
    assert np.allclose(frame[:, :14], 200 / 255, atol=1e-6)
    assert (frame[:, 14:] == 0).all()


def test_a_transparent_palette_lies_on_black() -> None:
    image = Image.fromarray(np.where(grey() > 127, 1, 0).astype(np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 100, 100, 100])
    frame, _ = decode(image_bytes(image, transparency=0), SHAPE, LIMITS)
    assert np.allclose(frame, np.where(grey() > 127, 100 / 255, 0), atol=1e-6)


def test_a_cmyk_jpeg_becomes_grey() -> None:
    image = Image.new("CMYK", (28, 28), (0, 0, 0, 55))
    frame, _ = decode(image_bytes(image, "JPEG", quality=95), SHAPE, LIMITS)
    assert np.abs(frame - 200 / 255).max() < 0.02


@pytest.mark.parametrize("form", ["PNG", "MPO"])
def test_of_an_animated_image_the_first_frame_is_taken(form: str) -> None:
    first, second = Image.fromarray(smooth()), Image.fromarray(255 - smooth())
    value = image_bytes(first, form, save_all=True, append_images=[second])
    with Image.open(io.BytesIO(value)) as image:
        assert getattr(image, "n_frames", 1) == 2
    frame, _ = decode(value, SHAPE, LIMITS)
    assert np.abs(frame - smooth() / 255).max() < 0.06


@pytest.mark.parametrize("size", [(56, 112), (14, 20), (1, 1), (1000, 700)])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_another_size_is_resized_and_said(size: tuple[int, int], form: str) -> None:
    picture = Image.fromarray(smooth(*size))
    frame, resized = decode(image_bytes(picture, form), SHAPE, LIMITS)
    assert resized
    assert frame.shape == SHAPE
    assert 0 <= frame.min() <= frame.max() <= 1
    if min(size) > 10:
        assert np.abs(frame - smooth() / 255).max() < 0.08


def test_a_model_of_another_shape() -> None:
    frame, resized = decode(png(smooth(32, 64)), (32, 64), LIMITS)
    assert (frame.shape, resized) == ((32, 64), False)


@pytest.mark.parametrize(
    ("shape", "dtype", "value"),
    [
        ("28,28", "uint8", grey().tobytes()),
        ("(28, 28, 1)", "uint8", grey().tobytes()),
        ("28x28", "uint16", (grey().astype(np.uint16) * 257).tobytes()),
        ("[28, 28]", ">u2", (grey().astype(np.uint16) * 257).astype(">u2").tobytes()),
        ("28, 28", "float32", as_frame(grey())),
        ("28,28", "float64", (grey() / 255).astype(np.float64).tobytes()),
    ],
)
def test_raw_pixels(shape: str, dtype: str, value: bytes) -> None:
    frame, resized = decode(value, SHAPE, LIMITS, RawForm.of(shape, dtype))
    assert np.allclose(frame, grey() / 255, atol=1e-6)
    assert not resized


def test_raw_colours_and_sizes() -> None:
    colours = np.stack([smooth(56, 56), smooth(56, 56)[::-1], smooth(56, 56)], axis=2)
    frame, resized = decode(colours.tobytes(), SHAPE, LIMITS, RawForm.of("56,56,3", "uint8"))
    as_png, _ = decode(png(colours), SHAPE, LIMITS)
    assert resized
    assert np.abs(frame - as_png).max() < 2 / 255


def test_a_frame_may_be_written_to() -> None:
    for value, raw in ((png(grey()), None), (as_frame(grey()), RawForm.of("28,28", "float32"))):
        frame, _ = decode(value, SHAPE, LIMITS, raw)
        assert frame.flags.c_contiguous
        frame[0, 0] = 0


# -- rejected ------------------------------------------------------------------------------------------------------


def test_nothing_is_empty() -> None:
    assert refusal(b"") == ("empty", "the record has no value")


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_truncated_image_is_damaged(form: str, share: float) -> None:
    value = image_bytes(Image.fromarray(grey(height=64, width=64)), form)
    reason, message = refusal(value[: int(len(value) * share)])
    assert reason == "damaged"
    assert message.startswith("the image cannot be decoded: ")


def test_a_head_alone() -> None:
    assert refusal(png(grey())[:20])[0] in ("malformed", "damaged")


def test_changed_bytes_are_damage() -> None:
    value = bytearray(png(grey(height=64, width=64)))
    value[len(value) // 2] ^= 0xFF
    assert refusal(bytes(value))[0] == "damaged"


@pytest.mark.parametrize(
    "value", [b"this is the text of picture.png\n", b"\x89PNG\r\n", b"GIF89a" + bytes(50), bytes(9)]
)
def test_what_is_neither_png_nor_jpeg_is_malformed(value: bytes) -> None:
    assert refusal(value) == ("malformed", "neither PNG nor JPEG")


def test_other_formats_are_not_read() -> None:
    for form in ("GIF", "BMP", "TIFF", "WEBP"):
        assert refusal(image_bytes(Image.fromarray(grey()), form))[0] == "malformed"


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    reason, message = refusal(bomb())
    assert reason == "too_many_pixels"
    assert message == "100000 x 100000 pixels; frames.limits.pixels allows 16000000"


def test_the_limits_are_those_of_the_configuration() -> None:
    small = LimitsConfig(pixels=27 * 28, bytes=10_000)
    assert refusal(png(grey()), limits=small)[0] == "too_many_pixels"
    assert refusal(grey().tobytes(), RawForm.of("28,28", "uint8"), small)[0] == "too_many_pixels"
    assert refusal(bytes(10_001), limits=small) == (
        "too_many_bytes", "10001 bytes; frames.limits.bytes allows 10000",
    )  # fmt: skip
    assert refusal(bytes(10_001), RawForm.of("28,28", "uint8"), small)[0] == "too_many_bytes"


@pytest.mark.parametrize(
    ("shape", "dtype", "reason", "message"),
    [
        ("28,27", "uint8", "shape_mismatch", "784 bytes; 28 x 27 of uint8 are 756"),
        ("28,28", "uint16", "shape_mismatch", "784 bytes; 28 x 28 of uint16 are 1568"),
        ("14,28,2", "uint8", "channel_mismatch", "2 channels; expected 1 (grey) or 3 (red, green, blue)"),
        ("14,14,4", "uint8", "channel_mismatch", "4 channels; expected 1 (grey) or 3 (red, green, blue)"),
        ("14,14", "float32", "bad_value", "a pixel of float32 lies outside 0 to 1"),
        ("0,28", "uint8", "empty", "28 x 0 pixels"),
    ],
)
def test_raw_pixels_that_are_not_what_their_headers_say(shape: str, dtype: str, reason: str, message: str) -> None:
    value = np.full(196, np.nan, np.float32).tobytes() if dtype == "float32" else bytes(784)
    assert refusal(value, RawForm.of(shape, dtype)) == (reason, message)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [(None, "uint8"), ("28,28", None), ("28", "uint8"), ("28,28", "int8"), ("1,2,3,4", "uint8"), ("-1,5", "u1")],
)
def test_headers_that_say_nothing(shape: str | None, dtype: str | None) -> None:
    with pytest.raises(Refused) as refused:
        RawForm.of(shape, dtype)
    assert refused.value.reason == "malformed"


# -- bounded -------------------------------------------------------------------------------------------------------


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    head = jpeg(smooth(), progressive=True)
    scan = head[head.rindex(b"\xff\xda") : -2]
    reason, message = refusal(head[:-2] + MAX_SCANS * scan + b"\xff\xd9")
    assert (reason, "scans; some ten are usual" in message) == ("damaged", True)
    ordinary, _ = decode(head, SHAPE, LIMITS)
    assert np.abs(ordinary - smooth() / 255).max() < 0.05


def test_many_scans_of_a_large_jpeg_are_refused() -> None:
    large = jpeg(smooth(400, 400), progressive=True)
    scan = large[large.rindex(b"\xff\xda") : -2]
    many = large[:-2] + 20 * scan + b"\xff\xd9"
    small = LimitsConfig(pixels=160_000, bytes=10_000_000)
    assert refusal(many, limits=small)[0] == "damaged"
    assert decode(many, SHAPE, LIMITS)[1]


def test_a_large_transparent_image_is_laid_on_black_in_strips() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (150, 28, 4), dtype=np.uint8)
    whole = Image.new("RGBA", (28, 150), (0, 0, 0, 255))
    whole.alpha_composite(Image.fromarray(colours))
    frame, _ = decode(png(colours), (150, 28), LIMITS)
    assert frame.tobytes() == as_frame(np.asarray(whole.convert("L")))


def test_a_transparent_grey_of_sixteen_bits_lies_on_black() -> None:
    deep = (np.arange(784, dtype=np.uint32) * 83).astype(np.uint16).reshape(SHAPE)
    frame, _ = decode(png(deep, transparency=int(deep[3, 4])), SHAPE, LIMITS)
    expected = np.where(deep == deep[3, 4], 0, deep).astype(np.float32) / np.float32(65535)
    assert np.array_equal(frame, expected)


def test_threads_decode_no_more_pixels_together_than_the_budget_has() -> None:
    budget, order = PixelBudget(100), []

    def decode_one(pixels: int) -> None:
        with budget.of(pixels):
            order.append(pixels)

    with ThreadPoolExecutor(2) as threads:
        with budget.of(60):
            fitting, too_large = threads.submit(decode_one, 40), threads.submit(decode_one, 1000)
            fitting.result(10)
            assert not too_large.done()
            order.append(60)
        too_large.result(10)
    assert order == [40, 60, 1000]
