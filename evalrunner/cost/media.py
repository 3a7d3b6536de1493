"""What the first bytes of an image or a recording say: its type, its size, its length. Nothing is decoded."""

from __future__ import annotations

import struct

_BYTES_PER_SECOND = 16_000  # of compressed speech, where no header says it
_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"#!AMR", "audio/amr"),
)


def media_type(data: bytes) -> str | None:
    """The MIME type by the first bytes; None for what no Qwen model takes."""
    if data[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(data[8:12])
    if data[4:8] == b"ftyp":
        return "image/heic" if data[8:12] in {b"heic", b"heix", b"mif1", b"msf1"} else "audio/mp4"
    if data[:1] == b"\xff" and data[1:2] and data[1] & 0xE0 == 0xE0:
        return "audio/aac" if data[1] & 0x06 == 0 else "audio/mpeg"
    return next((kind for start, kind in _STARTS if data.startswith(start)), None)


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a PNG, JPEG, GIF, WebP or BMP; None where the header does not say."""
    match media_type(data):
        case "image/png" if len(data) >= 24:
            return struct.unpack(">II", data[16:24])
        case "image/gif" if len(data) >= 10:
            return struct.unpack("<HH", data[6:10])
        case "image/bmp" if len(data) >= 26:
            width, height = struct.unpack("<ii", data[18:26])
            return width, abs(height)
        case "image/webp" if len(data) >= 30:
            return _webp_size(data)
        case "image/jpeg":
            return _jpeg_size(data)
    return None


def audio_seconds(data: bytes) -> float:
    """Of a WAV by its header, of anything else by its size: a guess."""
    if media_type(data) == "audio/wav" and len(data) >= 44:
        return max(0, len(data) - 44) / max(1, int.from_bytes(data[28:32], "little"))
    return len(data) / _BYTES_PER_SECOND


def _webp_size(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the first start-of-frame segment."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return None
