"""llama.cpp's server as a process of its own: started by `local_model`, gone as soon as the process that started it is.

`python -m evalrunner.serving.local_server SETTINGS` takes its settings as JSON, prints one line, its address, once it answers, and runs until its standard
input ends. llama.cpp's messages go to stderr.
"""

import json
import os
import sys

import xllamacpp


def serve(path: str, alias: str, threads: int, slots: int, context: int) -> xllamacpp.Server:
    """Load the model at `path` and answer as `alias` on a free loopback port. `context` is each slot's own, in tokens."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {alias}  # otherwise every answer names a path of this machine
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_parallel = slots
    params.n_ctx = context * slots
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.endpoint_slots = False
    params.cache_ram_mib = 0  # prompts of finished requests would be kept, up to 8 GiB of them
    params.verbosity = 1  # errors
    return xllamacpp.Server(params)


def main() -> None:
    address = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for the address
    server = serve(**json.loads(sys.argv[1]))
    address.write(f"{server.listening_address}\n")
    address.close()
    sys.stdin.buffer.read()  # the starter holds the other end: it closes it, or dies, however it dies
    os._exit(0)  # an orderly end would first finish answers that nobody waits for


if __name__ == "__main__":
    main()
