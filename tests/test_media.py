"""Images, audio and files: which are found, which are refused and in what words, and what of them is stored and sent."""

import base64
import json
import os
import struct
import zlib
from pathlib import Path

import pytest
from simulated import png, wav

from evalrunner.clients.dashscope import NativeDialect
from evalrunner.clients.openai import OpenAIDialect
from evalrunner.cost.models import lookup
from evalrunner.errors import ConfigError, DatasetError
from evalrunner.plan.config import load_config
from evalrunner.plan.grid import make_plan
from evalrunner.plan.media import MAX_DATA_URI, MediaFolder, located

IMAGE, SOUND = (base64.b64decode(uri.partition(",")[2]) for uri in (png(40, 30), wav(0.1)))
STUDY = """\
name: look
models: [MODEL]
prompt_sets:
  - name: pictures
    DATA
    prompts:
      plain: [{role: user, content: [PART, {text: "What is it?"}]}]
"""


def study(folder, part, data="data: data/rows.jsonl", model="{id: qwen-vl-plus, provider: simulator}"):
    path = folder / "study.yaml"
    path.write_text(STUDY.replace("PART", part).replace("DATA", data).replace("MODEL", model))
    return make_plan(load_config(path))


@pytest.fixture
def folder(tmp_path):
    """A config's folder with a data folder below it, and things that are nobody's business beside it."""
    home = tmp_path / "project"
    (home / "data" / "pics").mkdir(parents=True)
    (home / "data" / "pics" / "a.png").write_bytes(IMAGE)
    (home / "data" / "a.wav").write_bytes(SOUND)
    (home / "typed.png").write_bytes(IMAGE)
    (tmp_path / "secret.png").write_bytes(IMAGE)
    rows(home, {"image": "pics/a.png"})
    return home


def rows(home, *found):
    (home / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))


def only(plan):
    plan.validate()
    [request] = plan.requests(plan.models[0])
    return request


def test_a_path_out_of_the_data(folder):
    """It is relative to the data's folder; the stored message has the name and the hash, the request knows where the file is."""
    request = only(study(folder, '{image: "{{ image }}"}'))
    part, text = request.messages[0]["content"]
    assert set(part) == {"image", "sha256"}
    assert (part["image"], text) == ("pics/a.png", {"text": "What is it?"})
    assert request.media == {part["sha256"]: str((folder / "data/pics/a.png").resolve())}
    assert str(folder) not in json.dumps(request.messages)


def test_a_path_that_is_typed(folder):
    """It is relative to the config and may lie anywhere; where it is wrong, the error is at its place in the config."""
    for text in ("typed.png", "../secret.png", str(folder.parent / "secret.png")):
        assert only(study(folder, f"{{image: {text}}}")).messages[0]["content"][0]["image"] == text
    with pytest.raises(ConfigError, match=r"study.yaml:7:46: prompt_sets\[0\].prompts.plain\[0\].content\[0\].image: there is no file 'pics/a.png'"):
        study(folder, "{image: pics/a.png}")


def test_rows_that_are_typed(folder):
    """Rows in the config itself may point where its author likes."""
    request = only(study(folder, '{image: "{{ image }}"}', data="samples: [{image: ../secret.png}]"))
    assert list(request.media.values()) == [str((folder.parent / "secret.png").resolve())]


WANDERING = [
    "../../secret.png",
    "../secret.png",
    "pics/../../../secret.png",
    "pics\\..\\..\\..\\secret.png",
    "/etc/passwd",
    "\\etc\\passwd",
    "C:\\secret.png",
    "C:secret.png",
    "c:/secret.png",
    "\\\\host\\share\\a.png",
    "//host/share/a.png",
    "%2e%2e/%2e%2e/secret.png",
    "..%2f..%2fsecret.png",
    "%5c%5chost%5ca.png",
    "pics/a.png:stream",
    "con",
    "pics/NUL.png",
    "COM1.png",
    "lpt9 .png",
    ".. /secret.png",
    ".../secret.png",
    "pics/a.png\0.jpg",
    "file:///etc/passwd",
    "FILE:/etc/passwd",
    "javascript:alert(1)",
    "link.png",
    "folder/secret.png",
    "pics",
    "pics/b.png",
    "~/a.png",
    " ",
]


@pytest.mark.parametrize("text", WANDERING)
def test_a_path_out_of_the_data_stays_there(folder, text):
    """Absolute, climbing, encoded, through a link, another system's, a device: refused before anything is sent, and the error names the row."""
    (folder / "data" / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "data" / "folder").symlink_to(folder.parent)
    rows(folder, {"image": "pics/a.png"}, {"image": text})
    with pytest.raises(DatasetError, match=r"rows.jsonl:2: prompt 'plain' of 'pictures': ") as caught:
        study(folder, '{image: "{{ image }}"}').validate()
    assert len(caught.value.problems) == 1
    with pytest.raises(ValueError, match=r".+"):
        located(text, folder / "data", trusted=False)


def test_links_that_stay(folder):
    """A link inside the data's folder, or to the folder itself, is no escape."""
    (folder / "data" / "link.png").symlink_to(folder / "data/pics/a.png")
    (folder / "other").symlink_to(folder / "data")
    assert located("link.png", folder / "other", trusted=False) == (folder / "data/pics/a.png").resolve()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_a_file(folder):
    """What would hang when it is read is refused."""
    os.mkfifo(folder / "data/pipe.png")
    with pytest.raises(ValueError, match="is not a file"):
        located("pipe.png", folder / "data", trusted=False)


def test_an_address_goes_on_as_it_is(folder):
    """A URL is never fetched, whatever it points to; it stands in the message."""
    for url in ("https://x.example/a.png?sig=1", "HTTP://127.0.0.1/a.png", "oss://bucket/a.png"):
        rows(folder, {"image": url})
        request = only(study(folder, '{image: "{{ image }}"}'))
        assert (request.messages[0]["content"][0], request.media) == ({"image": url}, {})


def test_a_data_uri(folder):
    """It is checked like a file, and stored as its type and hash."""
    rows(folder, {"image": png(20, 20)})
    request = only(study(folder, '{image: "{{ image }}"}'))
    part = request.messages[0]["content"][0]
    assert part["image"] == "data:image/png;base64"
    assert request.media == {part["sha256"]: png(20, 20)}


def jpeg(width, height):
    return b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(10) + b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width) + bytes(20)


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("image", b"hello", "is not an image of a known format"),
        ("image", SOUND, "is not an image of a known format, but audio/wav"),
        ("audio", IMAGE, "is not audio of a known format, but image/png"),
        ("image", b"", "is not an image"),
        ("image", base64.b64decode(png(10, 40).partition(",")[2]), "is 10 × 40; both sides must be more than 10 pixels"),
        ("image", jpeg(4000, 19), "4000 × 19; the longer side may be at most 200 times the shorter"),
        ("image", IMAGE + bytes(MAX_DATA_URI * 3 // 4), "bytes; at most 7,864,272 can be sent"),
        ("file", b"", "is empty"),
    ],
)
def test_what_the_service_would_refuse(folder, kind, content, text):
    """Type, size and proportions are checked before anything is sent."""
    (folder / "data/odd").write_bytes(content)
    rows(folder, {"it": "odd"})
    with pytest.raises(DatasetError, match=rf"rows.jsonl:1: .*{text}"):
        study(folder, f'{{{kind}: "{{{{ it }}}}"}}').validate()


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("data:image/png,abc", "is not a data URI with base64"),
        ("data:image/png;base64,a!b", "is not base64"),
        ("data:image/png;base64," + "A" * MAX_DATA_URI, "at most 10,485,760 can be sent"),
        (wav(0.1), "is not an image"),
    ],
)
def test_data_uris_that_are_none(folder, uri, text):
    """The same for data URIs, and the error does not repeat them."""
    rows(folder, {"image": uri})
    with pytest.raises(DatasetError, match=text) as caught:
        study(folder, '{image: "{{ image }}"}').validate()
    assert len(str(caught.value)) < 400


def test_the_key_covers_the_content(folder):
    """Another picture under the same name is another request; the same project in another place is the same one."""
    first = only(study(folder, '{image: "{{ image }}"}')).key
    moved = folder.rename(folder.parent / "moved")
    assert only(study(moved, '{image: "{{ image }}"}')).key == first
    (moved / "data/pics/a.png").write_bytes(zlib.compress(b"") and base64.b64decode(png(41, 30).partition(",")[2]))
    assert only(study(moved, '{image: "{{ image }}"}')).key != first


def test_a_file_that_changes_under_a_run(folder):
    """What was checked is what is sent."""
    request = only(study(folder, '{image: "{{ image }}"}'))
    (folder / "data/pics/a.png").write_bytes(IMAGE + b" ")
    with pytest.raises(DatasetError, match="the file changed while it was in use"):
        OpenAIDialect().body(request)
    (folder / "data/pics/a.png").unlink()
    with pytest.raises(DatasetError, match="No such file"):
        NativeDialect().body(request)


def sent(request, dialect):
    body = dialect.body(request)
    return body.get("input", body)["messages"][0]["content"][0]


def test_what_is_sent_of_an_image(folder):
    """Each dialect has its form; a local file becomes a data URI."""
    local = only(study(folder, '{image: "{{ image }}"}'))
    uri = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
    assert sent(local, OpenAIDialect()) == {"type": "image_url", "image_url": {"url": uri}}
    assert sent(local, NativeDialect()) == {"image": uri}


def test_what_is_sent_of_audio(folder):
    """Natively `audio`; compatibly `input_audio`, with base64 alone for everyone but DashScope, and for Qwen-Audio, where it is asked for, `audio_url`."""
    encoded = base64.b64encode(SOUND).decode()
    omni = only(study(folder, "{audio: data/a.wav}", model="{id: qwen3-omni-flash, provider: simulator}"))
    assert sent(omni, NativeDialect()) == {"audio": f"data:audio/wav;base64,{encoded}"}
    assert sent(omni, OpenAIDialect())["input_audio"] == {"data": encoded, "format": "wav"}
    assert sent(omni, OpenAIDialect(dashscope=True, seed_compat=True))["input_audio"] == {"data": f"data:;base64,{encoded}", "format": "wav"}
    turbo = only(study(folder, "{audio: 'https://x.example/a.mp3'}", model="{id: qwen-audio-turbo, provider: simulator}"))
    assert sent(turbo, OpenAIDialect(seed_compat=True)) == {"type": "audio_url", "audio_url": {"url": "https://x.example/a.mp3"}}
    assert sent(turbo, OpenAIDialect())["input_audio"] == {"data": "https://x.example/a.mp3", "format": "mp3"}


def test_conversations_with_media(folder):
    """A conversation out of the data may have parts in our form or in OpenAI's."""
    encoded = base64.b64encode(SOUND).decode()
    content = [
        {"image": "pics/a.png", "min_pixels": 4096},
        {"type": "image_url", "image_url": {"url": png(20, 20), "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": "https://x.example/a.mp3"}},
        {"type": "text", "text": "What is it?"},
    ]
    (folder / "data/rows.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": content}]}) + "\n")
    (folder / "study.yaml").write_text(
        "name: a\nmodels: [{id: qwen3-omni-flash, provider: simulator}]\nprompt_sets: [{name: p, data: data/rows.jsonl, messages_from: messages}]\n"
    )
    request = only(make_plan(load_config(folder / "study.yaml")))
    one, two, three, four, five = request.messages[0]["content"]
    assert (one["image"], one["min_pixels"], two["image"], three["audio"]) == ("pics/a.png", 4096, "data:image/png;base64", "data:audio/wav;base64")
    assert (four, five) == ({"audio": "https://x.example/a.mp3"}, {"text": "What is it?"})
    assert len(request.media) == 3
    assert sent(request, OpenAIDialect())["min_pixels"] == 4096


def test_tokens(folder):
    """Media are estimated by the published formulas, a URL as an image of 1024 × 1024 or ten seconds."""
    media, facts = MediaFolder(folder / "data", folder), lookup("qwen3-omni-flash")
    (folder / "data/b.png").write_bytes(base64.b64decode(png(1920, 1080).partition(",")[2]))
    (folder / "data/b.wav").write_bytes(base64.b64decode(wav(3).partition(",")[2]))
    parts = [{"image": "b.png"}, {"audio": "b.wav"}, {"image": "https://x.example/a.png"}, {"audio": "https://x.example/a.mp3"}, {"text": "?"}]
    [message], _ = media.resolved([{"role": "user", "content": parts}])
    assert [media.tokens(part, facts) for part in message["content"]] == [2042, 38, 1026, 125, 0]


def test_paths_are_shown_as_they_were_written():
    """No path of this machine is in a message about a URL that is none."""
    with pytest.raises(ValueError, match=r"'ftp://x/a\.png' is neither a path nor an http"):
        located("ftp://x/a.png", Path(), trusted=True)
